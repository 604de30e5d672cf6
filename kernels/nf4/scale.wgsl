// The scale of a block, plain.

@group(0) @binding(3) var<storage, read> absmax: array<f32>;         // (blocks)

fn nf4_scale(block: u32) -> f32 {
  return absmax[block];
}
