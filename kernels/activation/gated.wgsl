// A gated activation: y = act(gate) * up.   Shazeer 2020.
//
// Grid: one thread per quad, wrapped.

#needs act

struct Params { quads: u32 }

@group(0) @binding(0) var<storage, read> gate: array<X>;
@group(0) @binding(1) var<storage, read> up: array<X>;
@group(0) @binding(2) var<storage, read_write> y: array<X>;
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  y[i] = store_X(act(load_X(gate[i])) * load_X(up[i]));
}
