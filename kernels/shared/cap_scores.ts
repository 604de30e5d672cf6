import capScoresWgsl from "./cap_scores.wgsl" with { type: "text" };
import softCapWgsl from "./soft_cap.wgsl" with { type: "text" };

/** Pieces of kernels that cap attention scores; they need the constant CAPPED and the uniform `cap`. */
export const CAP_SCORES: readonly string[] = [capScoresWgsl, softCapWgsl];
