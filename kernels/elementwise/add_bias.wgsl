// y[r, n] += factor * bias[n].   Grid: one thread per quad of y, wrapped.

struct Params { quads: u32, row_quads: u32, factor: f32 }

@group(0) @binding(0) var<storage, read_write> y: array<Y>;     // (rows, N)
@group(0) @binding(1) var<storage, read> bias: array<vec4f>;    // (N)
@group(0) @binding(2) var<uniform> p: Params;                   // row_quads: N / 4

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  y[i] = store_Y(load_Y(y[i]) + p.factor * bias[i % p.row_quads]);
}
