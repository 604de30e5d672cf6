// Sums and maxima over a workgroup of LANES threads, in an order that never changes.
// LANES values are folded to 8 by the first 8 lanes, and those by every lane: two barriers.
// Every lane must call these, and all get the result.

#needs LANES    // threads per workgroup: a multiple of 8

var<workgroup> lane_values: array<f32, LANES>;
var<workgroup> eighths: array<f32, 8>;

fn workgroup_sum(lane: u32, value: f32) -> f32 {
  lane_values[lane] = value;
  workgroupBarrier();
  if (lane < 8u) {
    var sum = 0.0;
    for (var i = lane; i < LANES; i += 8u) {
      sum += lane_values[i];
    }
    eighths[lane] = sum;
  }
  workgroupBarrier();
  return ((eighths[0] + eighths[1]) + (eighths[2] + eighths[3])) +
    ((eighths[4] + eighths[5]) + (eighths[6] + eighths[7]));
}

fn workgroup_max(lane: u32, value: f32) -> f32 {
  lane_values[lane] = value;
  workgroupBarrier();
  if (lane < 8u) {
    var most = lane_values[lane];
    for (var i = lane; i < LANES; i += 8u) {
      most = max(most, lane_values[i]);
    }
    eighths[lane] = most;
  }
  workgroupBarrier();
  return max(
    max(max(eighths[0], eighths[1]), max(eighths[2], eighths[3])),
    max(max(eighths[4], eighths[5]), max(eighths[6], eighths[7])),
  );
}
