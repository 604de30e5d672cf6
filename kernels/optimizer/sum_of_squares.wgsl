// Sums of squares over spans of a gradient: sums[first + s] = sum of g[i]^2 over span s.
//
// Grid: one workgroup per span of SPAN quads, wrapped.

#needs workgroup_sum
#needs LANES SPAN

struct Params { quads: u32, first: u32 }

@group(0) @binding(0) var<storage, read> g: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let span = group.y * groups.x + group.x;
  // The same for the whole workgroup, so leaving here splits no barrier.
  if (span * SPAN >= p.quads) { return; }
  let end = min(p.quads, (span + 1u) * SPAN);
  var squares = vec4f();
  for (var i = span * SPAN + lane; i < end; i += LANES) {
    squares += g[i] * g[i];
  }
  let sum = workgroup_sum(lane, (squares.x + squares.y) + (squares.z + squares.w));
  if (lane == 0u) { sums[p.first + span] = sum; }
}
