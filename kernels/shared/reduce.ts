import reduceWgsl from "./reduce.wgsl" with { type: "text" };

/** Pieces, besides its own source, of a kernel of 64 threads that share a sum or a maximum. */
export const REDUCE_64 = { libraries: [reduceWgsl], constants: { LANES: 64 } } as const;
