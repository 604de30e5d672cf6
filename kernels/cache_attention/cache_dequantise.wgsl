// Writes rows of a cache of 8 bits as floats.
//
// Grid: one thread per quad, wrapped.

#needs load_C HEAD
#needs D4    // quads of a head

struct Params { quads: u32 }

@group(0) @binding(0) var<storage, read> cached: array<C>;       // (heads of all rows, HEAD)
@group(0) @binding(1) var<storage, read_write> x: array<X>;      // (heads of all rows, D4)
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  let at = i / D4 * HEAD;
  x[i] = store_X(load_C(cached[at + i % D4]) * bitcast<f32>(cached[at + D4]));
}
