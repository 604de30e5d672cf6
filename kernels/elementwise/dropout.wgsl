// Inverted dropout: y[e] = x[e] * scale if the random word of element e is not below `threshold`, else 0.
// The word depends on the key and on the element's number alone, so that the gradient finds the same mask again.
//
// Grid: one thread per quad, wrapped.

#needs random_words number_of

struct Params {
  quads: u32,
  first_quad: u32,
  first_quad_high: u32,
  seed: u32,
  stream: u32,
  threshold: u32,
  scale: f32,
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
  let number = number_of(i);
  let low = p.first_quad + number;
  let high = p.first_quad_high + select(0u, 1u, low < number);
  let words = random_words(vec2u(p.seed, p.stream), vec2u(low, high));
  y[i] = store_X(select(vec4f(), load_X(x[i]) * p.scale, words >= vec4u(p.threshold)));
}
