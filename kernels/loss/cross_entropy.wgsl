// Cross-entropy of each row of logits against its label: loss[r] = log(sum_c exp(x[r, c])) - x[r, label].
// If GRADIENT, the logits become their gradient: (softmax(x) - onehot(label)) * grad_scale.
// If CAPPED, the logits are x = cap * tanh(y / cap), and the gradient is that of y: times 1 - (x / cap)^2.
// Rows without a label have loss 0 and gradient 0; columns past the vocabulary are ignored and have gradient 0.
// A label past the vocabulary gives NaN for both.
//
// Grid: one workgroup per row, wrapped. One reading finds maximum and sum together: each thread keeps the
// maximum so far, and rescales its sum when that grows.

#needs workgroup_max workgroup_sum
#needs LANES GRADIENT CAPPED

const NO_LABEL = 0xffffffffu;
const LOWEST = -1e38;

struct Params { rows: u32, quads: u32, vocab_size: u32, grad_scale: f32, cap: f32 }

@group(0) @binding(0) var<storage, read_write> logits: array<vec4f>;    // (rows, 4 * quads)
@group(0) @binding(1) var<storage, read> labels: array<u32>;            // (rows)
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;        // (rows)
@group(0) @binding(3) var<storage, read_write> argmax: array<u32>;      // (rows)
@group(0) @binding(4) var<uniform> p: Params;

fn columns_of(q: u32) -> vec4u {
  return vec4u(4u * q) + vec4u(0u, 1u, 2u, 3u);
}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.y * groups.x + group.x;
  // The same for the whole workgroup, so leaving here splits no barrier.
  if (row >= p.rows) { return; }
  let base = row * p.quads;
  let label = labels[row];
  let has_label = label != NO_LABEL;
  // This lane alone reads the label's logit and later overwrites it, so no other can overwrite it first.
  let owns_label = lane == select(0u, (label / 4u) % LANES, label < p.vocab_size);
  var target_logit = 0.0;
  if (owns_label && label < p.vocab_size) { target_logit = logits[base + label / 4u][label % 4u]; }
  let poison = bitcast<f32>(label | 0x7fc00000u);
  let is_bad = has_label && label >= p.vocab_size;

  var most = LOWEST;
  var most_column = 0u;
  var sum = 0.0;
  for (var q = lane; q < p.quads; q += LANES) {
    let v = select(vec4f(LOWEST), logits[base + q], columns_of(q) < vec4u(p.vocab_size));
    let top = max(max(v.x, v.y), max(v.z, v.w));
    if (top > most) {
      sum *= exp(most - top);
      most = top;
      most_column = 4u * q + select(select(select(3u, 2u, v.z == top), 1u, v.y == top), 0u, v.x == top);
    }
    let e = exp(v - vec4f(most));
    sum += (e.x + e.y) + (e.z + e.w);
  }
  let row_most = workgroup_max(lane, most);
  let row_sum = workgroup_sum(lane, sum * exp(most - row_most));
  // The lowest column among equals. Columns stay below 2^24, which f32 holds exactly.
  let first = workgroup_max(lane, select(-16777216.0, -f32(most_column), most == row_most));

  if (owns_label) {
    loss[row] = select(0.0, select(log(row_sum) - (target_logit - row_most), poison, is_bad), has_label);
  }
  if (lane == 0u) { argmax[row] = u32(-first); }

  if (GRADIENT) {
    let scale = select(0.0, select(p.grad_scale, poison, is_bad), has_label);
    let factor = scale / row_sum;
    for (var q = lane; q < p.quads; q += LANES) {
      let columns = columns_of(q);
      let x = logits[base + q];
      let softmax = exp(x - vec4f(row_most)) * factor;
      var d = softmax - select(vec4f(), vec4f(scale), columns == vec4u(label));
      if (CAPPED) { d *= 1.0 - (x / p.cap) * (x / p.cap); }
      logits[base + q] = select(vec4f(), d, (columns < vec4u(p.vocab_size)) & vec4<bool>(has_label));
    }
  }
}
