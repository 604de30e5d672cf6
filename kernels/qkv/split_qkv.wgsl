// Takes each row of the fused product apart: q, k and v lie in it one after another.
//
// Grid: one thread per quad of the fused product, wrapped.

struct Params { quads: u32, q_quads: u32, kv_quads: u32 }

@group(0) @binding(0) var<storage, read> fused: array<X>;          // (rows, Q + 2 K)
@group(0) @binding(1) var<storage, read_write> q: array<X>;        // (rows, Q)
@group(0) @binding(2) var<storage, read_write> k: array<X>;        // (rows, K)
@group(0) @binding(3) var<storage, read_write> v: array<X>;        // (rows, K)
@group(0) @binding(4) var<uniform> p: Params;                      // q_quads: Q / 4, kv_quads: K / 4

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  let width = p.q_quads + 2u * p.kv_quads;
  let row = i / width;
  let column = i % width;
  if (column < p.q_quads) {
    q[row * p.q_quads + column] = fused[i];
    return;
  }
  let inside = column - p.q_quads;
  if (inside < p.kv_quads) {
    k[row * p.kv_quads + inside] = fused[i];
  } else {
    v[row * p.kv_quads + inside - p.kv_quads] = fused[i];
  }
}
