// Sums over spans: sums[s] = sum of values[i] over the i of span s, added to what is there if ADD is 1.
// Repeated until one is left: a tree, so that rounding grows with the logarithm of the length.
//
// Grid: one workgroup per span of SPAN values, wrapped.

override SPAN: u32;
override ADD: u32 = 0u;

struct Params { count: u32 }

@group(0) @binding(0) var<storage, read> values: array<f32>;
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
  if (span * SPAN >= p.count) { return; }
  let end = min(p.count, (span + 1u) * SPAN);
  var part = 0.0;
  for (var i = span * SPAN + lane; i < end; i += LANES) {
    part += values[i];
  }
  var sum = workgroup_sum(lane, part);
  if (lane == 0u) {
    if (ADD == 1u) { sum += sums[span]; }
    sums[span] = sum;
  }
}
