// The scale of a block, itself in 8 bits ("double quantisation", QLoRA section 3): blocks of 256 scales have an f32
// scale of their own, and all share an offset.

@group(0) @binding(3) var<storage, read> absmax: array<u32>;         // (blocks), 4 a word
@group(0) @binding(4) var<storage, read> nested: array<f32>;         // of each matrix the offset, then one scale per 256 blocks
@group(0) @binding(5) var<storage, read> dynamic_code: array<f32>;   // (256), of all matrices

// What all blocks of a matrix have in common: where its scales in f32 begin, and the offset.
struct Nf4Scales { nested: u32, offset: f32 }

// Of a matrix whose offset is nested[first]. `before`: 256 blocks each that are counted before its own.
fn nf4_scales(first: u32, before: u32) -> Nf4Scales {
  return Nf4Scales(first + 1u - before, nested[first]);
}

// `block` counts all blocks in absmax; `own` those of the matrix, and the ones before as nf4_scales knows them.
fn nf4_scale_of(scales: Nf4Scales, block: u32, own: u32) -> f32 {
  let code = (absmax[block / 4u] >> (8u * (block % 4u))) & 255u;
  return dynamic_code[code] * nested[scales.nested + own / 256u] + scales.offset;
}
