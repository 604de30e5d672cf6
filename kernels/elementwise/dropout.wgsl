// Inverted dropout: y[e] = x[e] * factor where the mask keeps element e, else 0.
//
// Grid: one thread per quad, wrapped.

#needs kept number_of

struct Params {
  quads: u32,
  mask_quad: u32,
  mask_quad_high: u32,
  mask_seed: u32,
  mask_stream: u32,
  mask_threshold: u32,
  factor: f32,
  row_quads: u32,
  numbers_at: u32,
}

@group(0) @binding(0) var<storage, read> x: array<X>;
@group(0) @binding(1) var<storage, read_write> y: array<X>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  y[i] = store_X(select(vec4f(), load_X(x[i]) * p.factor, kept(0u, number_of(i))));
}
