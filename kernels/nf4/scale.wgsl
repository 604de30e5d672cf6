// The scale of a block, plain: called as that of scale_nested.wgsl, where a matrix's scales have more in common.

@group(0) @binding(3) var<storage, read> absmax: array<f32>;         // (blocks)

struct Nf4Scales { nothing: u32 }

fn nf4_scales(first: u32, before: u32) -> Nf4Scales {
  return Nf4Scales();
}

// `block` counts all blocks in absmax.
fn nf4_scale_of(scales: Nf4Scales, block: u32, own: u32) -> f32 {
  return absmax[block];
}
