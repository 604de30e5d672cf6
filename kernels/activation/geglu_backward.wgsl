// Gradient of GEGLU, in place over its inputs: gate becomes dy * up * gelu'(gate), up becomes dy * gelu(gate).
//
// Grid: one thread per quad, wrapped.

#needs gelu gelu_gradient

struct Params { quads: u32 }

@group(0) @binding(0) var<storage, read> dy: array<Y>;
@group(0) @binding(1) var<storage, read_write> gate: array<X>;
@group(0) @binding(2) var<storage, read_write> up: array<X>;
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  let d = load_Y(dy[i]);
  let g = load_X(gate[i]);
  gate[i] = store_X(d * load_X(up[i]) * gelu_gradient(g));
  up[i] = store_X(d * gelu(g));
}
