// The scale of a block as in scale_nested.wgsl, of matrices one behind the other that were quantised each for itself: each
// has an offset and scales of its own.

#needs BLOCKS    // of one matrix

@group(0) @binding(3) var<storage, read> absmax: array<u32>;         // (blocks), 4 a word
@group(0) @binding(4) var<storage, read> nested: array<f32>;         // for each matrix the offset, then a scale per 256 blocks
@group(0) @binding(5) var<storage, read> dynamic_code: array<f32>;   // (256)

fn nf4_scale(block: u32) -> f32 {
  let code = (absmax[block / 4u] >> (8u * (block % 4u))) & 255u;
  let first = block / BLOCKS * (1u + (BLOCKS + 255u) / 256u);
  return dynamic_code[code] * nested[first + 1u + block % BLOCKS / 256u] + nested[first];
}
