// The scale of a block, itself in 8 bits ("double quantisation", QLoRA section 3): blocks of 256 scales have an f32
// scale of their own, and all share an offset.

@group(0) @binding(3) var<storage, read> absmax: array<u32>;         // (blocks), 4 a word
@group(0) @binding(4) var<storage, read> nested: array<f32>;         // the offset, then one scale per 256 blocks
@group(0) @binding(5) var<storage, read> dynamic_code: array<f32>;   // (256)

fn nf4_scale(block: u32) -> f32 {
  let code = (absmax[block / 4u] >> (8u * (block % 4u))) & 255u;
  return dynamic_code[code] * nested[1u + block / 256u] + nested[0];
}
