import reduceWgsl from "./reduce.wgsl" with { type: "text" };

/** What a kernel of 64 threads that share a sum or a maximum is made of besides its own source. */
export const REDUCE_64 = { libraries: [reduceWgsl], constants: { LANES: 64 } } as const;
