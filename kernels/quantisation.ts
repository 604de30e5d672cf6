/** The ways to quantise a model's linears. A further one is its folder and an entry here. */
import { nf4Method } from "./nf4/method.ts";
import type { QuantisationMethod } from "./weight.ts";

/**
 * Forms in which a model's linears are held: as the checkpoint has them, in NF4 with scales in f32, or in NF4 with scales in 8 bits
 * (double quantisation).
 */
export type Quantisation = "none" | "nf4" | "nf4-double";

/** A quantisation that is one. */
export type Quantised = Exclude<Quantisation, "none">;

/** The methods by quantisation. */
export const METHODS: Readonly<Record<Quantised, QuantisationMethod>> = {
  "nf4": nf4Method({ doubleQuant: false }),
  "nf4-double": nf4Method({ doubleQuant: true }),
};
