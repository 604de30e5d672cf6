// What the softmax over a token's logits is made of.

#needs workgroup_max workgroup_sum logits p LANES

const LOWEST = -1e38;

// Largest of the E logits from index `base` on, and the sum of exponentials less that.
struct Exponentials { most: f32, sum: f32 }

fn exponentials(lane: u32, base: u32) -> Exponentials {
  var most = LOWEST;
  for (var e = lane; e < p.experts; e += LANES) {
    most = max(most, logits[base + e]);
  }
  most = workgroup_max(lane, most);
  var sum = 0.0;
  for (var e = lane; e < p.experts; e += LANES) {
    sum += exp(logits[base + e] - most);
  }
  return Exponentials(most, workgroup_sum(lane, sum));
}
