// Gradient of GELU, in place over its input: x becomes dy * gelu'(x), by the form that the library gives.
//
// Grid: one thread per quad, wrapped.

#needs gelu_gradient

struct Params { quads: u32 }

@group(0) @binding(0) var<storage, read> dy: array<Y>;
@group(0) @binding(1) var<storage, read_write> x: array<X>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  x[i] = store_X(load_Y(dy[i]) * gelu_gradient(load_X(x[i])));
}
