// SwiGLU of a product whose rows are gate and up one after the other: y = silu(gate) * up.   Shazeer 2020.
//
// Grid: one thread per quad of y, wrapped.

#needs act

struct Params { quads: u32, row_quads: u32 }

@group(0) @binding(0) var<storage, read> fused: array<X>;     // (rows, 2 F)
@group(0) @binding(1) var<storage, read_write> y: array<X>;   // (rows, F)
@group(0) @binding(2) var<uniform> p: Params;                 // row_quads: F / 4

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  let at = i + i / p.row_quads * p.row_quads;
  y[i] = store_X(act(load_X(fused[at])) * load_X(fused[at + p.row_quads]));
}
