// Gradient of the experts' weights for the logits, over which it is written:
//   d_logit[e] = w[e] dw[e] - q[e] sum_j w[j] dw[j],  where w and dw are 0 for experts that were not taken, and q is the
//   softmax, or w if NORMALISED. The choice itself has no gradient. Columns past E become 0.
//
// Grid: one workgroup per token, wrapped.

#needs exponentials EXPERTS_AT
#needs LANES NORMALISED

struct Params { rows: u32, width: u32, experts: u32, k: u32, first: u32, pairs: u32 }

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;    // (rows, width)
@group(0) @binding(1) var<storage, read> weights: array<f32>;         // (T k)
@group(0) @binding(2) var<storage, read> d_weights: array<f32>;       // (T k)
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<uniform> p: Params;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.y * groups.x + group.x;
  // The same for the whole workgroup, so leaving here splits no barrier.
  if (row >= p.rows) { return; }
  let base = row * p.width;
  let pair = (p.first + row) * p.k;
  let softmax = exponentials(lane, base);
  var shared_part = 0.0;
  for (var j = 0u; j < p.k; j++) {
    shared_part += weights[pair + j] * d_weights[pair + j];
  }
  for (var e = lane; e < p.width; e += LANES) {
    var weight = 0.0;
    var d_weight = 0.0;
    for (var j = 0u; j < p.k; j++) {
      if (table[EXPERTS_AT * p.pairs + pair + j] == e) {
        weight = weights[pair + j];
        d_weight = d_weights[pair + j];
      }
    }
    var share = weight;
    if (!NORMALISED) { share = exp(logits[base + e] - softmax.most) / softmax.sum; }
    logits[base + e] = select(0.0, weight * d_weight - share * shared_part, e < p.experts);
  }
}
