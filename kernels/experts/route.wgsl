// The k experts of each token with their weights: softmax over all E logits, then the k largest, of equals the lowest
// numbers; divided by their sum if NORMALISED.   Jiang et al. 2024, Mixtral, arXiv:2401.04088, section 2.1.
//
// Grid: one workgroup per token, wrapped. A lane looks after experts lane, lane + 64, ..., of which `taken` has a bit each.

#needs workgroup_max exponentials LOWEST EXPERTS_AT
#needs LANES NORMALISED

struct Params {
  rows: u32,       // tokens of this dispatch
  width: u32,      // of a row of logits
  experts: u32,    // E, up to 2048
  k: u32,          // up to 64
  first: u32,      // token that comes first
  pairs: u32,      // T k of the table
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;          // (rows, width)
@group(0) @binding(1) var<storage, read_write> weights: array<f32>;   // (T k)
@group(0) @binding(2) var<storage, read_write> table: array<u32>;     // its experts are written
@group(0) @binding(3) var<uniform> p: Params;

var<workgroup> chosen: array<f32, 64>;

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
  let softmax = exponentials(lane, base);
  var taken = 0u;
  for (var j = 0u; j < p.k; j++) {
    var best = LOWEST;
    var best_expert = 0xffffffu;
    for (var e = lane; e < p.experts; e += LANES) {
      if ((taken & (1u << (e / LANES))) != 0u) { continue; }
      // NaN, which makes the weights NaN, must not make an expert that does not exist.
      let logit = select(LOWEST, logits[base + e], logits[base + e] > LOWEST);
      if (best_expert == 0xffffffu || logit > best) {
        best = logit;
        best_expert = e;
      }
    }
    let row_best = workgroup_max(lane, select(2.0 * LOWEST, best, best_expert != 0xffffffu));
    let expert = u32(-workgroup_max(lane, select(-16777215.0, -f32(best_expert), best == row_best)));
    if (expert % LANES == lane) {
      taken |= 1u << (expert / LANES);
      chosen[j] = exp(logits[base + expert] - softmax.most) / softmax.sum;
      table[EXPERTS_AT * p.pairs + (p.first + row) * p.k + j] = expert;
    }
  }
  workgroupBarrier();
  if (lane < p.k) {
    var divisor = 1.0;
    if (NORMALISED) {
      divisor = 0.0;
      for (var j = 0u; j < p.k; j++) {
        divisor += chosen[j];
      }
    }
    weights[(p.first + row) * p.k + lane] = chosen[lane] / divisor;
  }
}
