// Gradient of SwiGLU, in place over the product whose rows are gate and up one after the other: with s = sigmoid(gate),
//   gate becomes dy * up * s * (1 + gate * (1 - s)),   up becomes dy * gate * s.
//
// Grid: one thread per quad of dy, wrapped.

#needs sigmoid

struct Params { quads: u32, row_quads: u32 }

@group(0) @binding(0) var<storage, read> dy: array<Y>;            // (rows, F)
@group(0) @binding(1) var<storage, read_write> fused: array<X>;   // (rows, 2 F)
@group(0) @binding(2) var<uniform> p: Params;                     // row_quads: F / 4

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  let at = i + i / p.row_quads * p.row_quads;
  let d = load_Y(dy[i]);
  let g = load_X(fused[at]);
  let s = sigmoid(g);
  let u = load_X(fused[at + p.row_quads]);
  fused[at] = store_X(d * u * s * (1.0 + g * (1.0 - s)));
  fused[at + p.row_quads] = store_X(d * g * s);
}
