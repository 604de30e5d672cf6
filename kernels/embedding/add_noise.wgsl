// Adds noise to rows: x[r, c] += scale[r] * u, u uniform in [-1, 1) by the key and the element's number alone.
//
// Grid: one thread per quad, wrapped.

#needs random_words

struct Params { quads: u32, row_quads: u32, first_quad: u32, seed: u32, stream: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<X>;       // (rows, C)
@group(0) @binding(1) var<storage, read> scale: array<f32>;       // (rows)
@group(0) @binding(2) var<uniform> p: Params;                     // row_quads: C / 4

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  let words = random_words(vec2u(p.seed, p.stream), vec2u(p.first_quad + i, 0u));
  // 24 bits of each word, which f32 holds exactly, in steps of 2^-23.
  let noise = vec4f(words >> vec4u(8u)) * 1.1920928955078125e-7 - 1.0;
  x[i] = store_X(load_X(x[i]) + scale[i / p.row_quads] * noise);
}
