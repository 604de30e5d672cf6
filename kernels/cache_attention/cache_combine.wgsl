// Puts the splits of a query's keys together: o = sum_s e^(m_s - m) o_s / sum_s e^(m_s - m) l_s, with m_s and l_s the
// maximum and sum of a split's scores, o_s its weighted values, and m the largest m_s.
//
// Grid: one workgroup per row and head, wrapped.

#needs workgroup_max workgroup_sum
#needs LANES
#needs D4    // quads of a head: LANES at most

struct Params { pairs: u32, splits: u32 }

@group(0) @binding(0) var<storage, read> parts: array<vec4f>;    // (splits, pairs, D4)
@group(0) @binding(1) var<storage, read> stats: array<vec2f>;    // (splits, pairs)
@group(0) @binding(2) var<storage, read_write> o: array<X>;      // (pairs, D4)
@group(0) @binding(3) var<uniform> p: Params;

var<workgroup> sums: array<vec4f, LANES>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let pair = group.y * groups.x + group.x;
  // The same for the whole workgroup, so leaving here splits no barrier.
  if (pair >= p.pairs) { return; }
  var most = -1e30;
  for (var split = lane; split < p.splits; split += LANES) {
    most = max(most, stats[split * p.pairs + pair].x);
  }
  most = workgroup_max(lane, most);
  var sum = 0.0;
  for (var split = lane; split < p.splits; split += LANES) {
    let part = stats[split * p.pairs + pair];
    sum += part.y * exp(part.x - most);
  }
  sum = workgroup_sum(lane, sum);

  let turns = LANES / D4;
  var value = vec4f();
  if (lane < turns * D4) {
    for (var split = lane / D4; split < p.splits; split += turns) {
      let part = split * p.pairs + pair;
      value += exp(stats[part].x - most) * parts[part * D4 + lane % D4];
    }
  }
  sums[lane] = value;
  workgroupBarrier();
  if (lane < D4) {
    for (var other = lane + D4; other < turns * D4; other += D4) {
      value += sums[other];
    }
    o[pair * D4 + lane] = store_X(value / sum);
  }
}
