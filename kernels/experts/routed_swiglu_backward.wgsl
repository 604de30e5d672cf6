// Gradient of the weighted SwiGLU, in place over its inputs: with s = sigmoid(gate) and w the weight of the row's expert,
//   gate becomes w dy up s (1 + gate (1 - s)),   up becomes w dy gate s,   dw = sum of dy gate s up over the row.
//
// Grid: one workgroup per sorted row, wrapped.

#needs sigmoid workgroup_sum PAIRS_AT
#needs LANES

struct Params { rows: u32, row_quads: u32 }

@group(0) @binding(0) var<storage, read> dy: array<Y>;              // (T k, F)
@group(0) @binding(1) var<storage, read_write> gate: array<X>;
@group(0) @binding(2) var<storage, read_write> up: array<X>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;       // (T k), by pair
@group(0) @binding(4) var<storage, read_write> d_weights: array<f32>;
@group(0) @binding(5) var<storage, read> table: array<u32>;
@group(0) @binding(6) var<uniform> p: Params;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.y * groups.x + group.x;
  // The same for the whole workgroup, so leaving here splits no barrier.
  if (row >= p.rows) { return; }
  let pair = table[PAIRS_AT * p.rows + row];
  let weight = weights[pair];
  var sum = 0.0;
  for (var q = lane; q < p.row_quads; q += LANES) {
    let i = row * p.row_quads + q;
    let d = load_Y(dy[i]);
    let g = load_X(gate[i]);
    let u = load_X(up[i]);
    let s = sigmoid(g);
    sum += dot(d * g * s, u);
    gate[i] = store_X(weight * d * u * s * (1.0 + g * (1.0 - s)));
    up[i] = store_X(weight * d * g * s);
  }
  sum = workgroup_sum(lane, sum);
  if (lane == 0u) { d_weights[pair] = sum; }
}
