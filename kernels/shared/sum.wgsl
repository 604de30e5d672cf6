// Sums over spans: sums[s] = sum of values[i] over the i of span s, added to what is there if ADD.
// Repeated until one is left: a tree, so that rounding grows with the logarithm of the length, and that of the
// upper levels, which weighs most, is made good.
//
// Grid: one workgroup per span of SPAN values, wrapped.

#needs SPAN ADD

const LANES = 64u;

struct Params { count: u32, zero: u32 }

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;    // zero: 0

var<workgroup> lane_sums: array<f32, LANES>;

// `value`, but the compiler cannot know: it would take (a + b) - a for b.
fn opaque(value: f32) -> f32 {
  return bitcast<f32>(bitcast<u32>(value) ^ p.zero);
}

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
  lane_sums[lane] = part;
  workgroupBarrier();
  if (lane > 0u) { return; }

  // Compensated summation (Knuth's two-sum): `lost` gathers what each addition rounds off.
  var sum = 0.0;
  if (ADD) { sum = sums[span]; }
  var lost = 0.0;
  for (var i = 0u; i < LANES; i++) {
    let term = lane_sums[i];
    let next = opaque(sum + term);
    let shared_part = opaque(next - sum);
    lost += (sum - opaque(next - shared_part)) + (term - shared_part);
    sum = next;
  }
  sums[span] = sum + lost;
}
