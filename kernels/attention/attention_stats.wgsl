// What the backward kernels need of each row and head: its log of the sum of exponentials, and the sum of dO * O, which
// the softmax's gradient takes from the gradient of every probability. Together, for a kernel may have 8 buffers only.

#needs D4

struct Params { pairs: u32 }
@group(0) @binding(0) var<storage, read> d_o: array<X>;             // (rows, heads, D4)
@group(0) @binding(1) var<storage, read> o: array<X>;               // (rows, heads, D4)
@group(0) @binding(2) var<storage, read> lse: array<f32>;           // (rows, heads)
@group(0) @binding(3) var<storage, read_write> stats: array<vec2f>;  // (rows, heads)
@group(0) @binding(4) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let pair = id.y * groups.x * 64u + id.x;
  if (pair >= p.pairs) { return; }
  var sum = 0.0;
  for (var i = pair * D4; i < (pair + 1u) * D4; i++) { sum += dot(load_X(d_o[i]), load_X(o[i])); }
  stats[pair] = vec2f(lse[pair], sum);
}
