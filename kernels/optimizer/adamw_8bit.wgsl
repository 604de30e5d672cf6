// AdamW with states of 8 bits in blocks of 256 elements, as bitsandbytes has it (kOptimizerStatic8bit2StateBlockwise):
// each block is decoded, updated in f32, and encoded again by its new largest magnitudes.
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2,
//   param += -step_size m / (sqrt(v) inverse_root + eps),   then param *= 1 - lr weight_decay.
// The gradient is first multiplied by the factor in `status`; if that says that a gradient was not finite,
// nothing changes.
//
// Grid: one workgroup of 64 threads per block, wrapped; a thread has one quad, and so one word of codes.

#needs workgroup_max
#needs LANES

struct Params {
  quads: u32,
  first_block: u32,        // of the first quad, in absmax
  beta1: f32,
  beta2: f32,
  one_minus_beta1: f32,
  one_minus_beta2: f32,
  step_size: f32,          // lr / (1 - beta1^t)
  inverse_root: f32,       // 1 / sqrt(1 - beta2^t)
  epsilon: f32,
  keep: f32,               // 1 - lr weight_decay
}

@group(0) @binding(0) var<storage, read_write> param: array<vec4f>;
@group(0) @binding(1) var<storage, read> grad: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> m_codes: array<u32>;     // four codes, the earliest lowest
@group(0) @binding(3) var<storage, read_write> v_codes: array<u32>;
@group(0) @binding(4) var<storage, read_write> absmax: array<vec2f>;    // (blocks): of m, of v
@group(0) @binding(5) var<storage, read> maps: array<f32>;              // (2, 256) ascending: of m, of v
@group(0) @binding(6) var<storage, read> status: array<f32>;            // (3): [1] is 1 if all is finite, [2] the factor
@group(0) @binding(7) var<uniform> p: Params;

const M = 0u;
const V = 256u;
// Where the map of m has 0.
const ZERO = 127u;

var<workgroup> map: array<f32, 512>;

fn decode(base: u32, word: u32) -> vec4f {
  let codes = (vec4u(word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u);
  return vec4f(map[base + codes.x], map[base + codes.y], map[base + codes.z], map[base + codes.w]);
}

// The code with the nearest value; exactly between two, the even one.
fn nearest(base: u32, x: f32) -> u32 {
  var below = 0u;
  for (var step = 128u; step > 0u; step >>= 1u) {
    if (map[base + below + step] < x) { below += step; }
  }
  let above = min(below + 1u, 255u);
  let middle = (map[base + below] + map[base + above]) * 0.5;
  let even = below + (below & 1u);
  return select(select(below, above, x > middle), min(even, 255u), x == middle);
}

// A mean below zero keeps its sign.
fn encode_m(x: f32) -> u32 {
  let code = nearest(M, x);
  return select(code, ZERO - 1u, x < 0.0 && code == ZERO);
}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let block = group.y * groups.x + group.x;
  // The same for the whole workgroup, so leaving here splits no barrier.
  if (block * LANES >= p.quads || status[1] != 1.0) { return; }
  for (var i = lane; i < 512u; i += LANES) { map[i] = maps[i]; }
  workgroupBarrier();

  let quad = block * LANES + lane;
  let is_inside = quad < p.quads;
  let old = absmax[p.first_block + block];
  var m = vec4f();
  var v = vec4f();
  if (is_inside) {
    let g = grad[quad] * status[2];
    m = decode(M, m_codes[quad]) * old.x * p.beta1 + p.one_minus_beta1 * g;
    v = decode(V, v_codes[quad]) * old.y * p.beta2 + p.one_minus_beta2 * g * g;
  }
  let size = abs(m);
  let m_most = workgroup_max(lane, max(max(size.x, size.y), max(size.z, size.w)));
  let v_most = workgroup_max(lane, max(max(v.x, v.y), max(v.z, v.w)));
  if (lane == 0u) { absmax[p.first_block + block] = vec2f(m_most, v_most); }
  if (!is_inside) { return; }

  param[quad] = (param[quad] - p.step_size * m / (sqrt(v) * p.inverse_root + p.epsilon)) * p.keep;
  // A block of zeros has codes of zero: nothing is divided by nothing.
  let x = m / select(m_most, 1.0, m_most == 0.0);
  let y = v / select(v_most, 1.0, v_most == 0.0);
  m_codes[quad] = encode_m(x.x) | (encode_m(x.y) << 8u) | (encode_m(x.z) << 16u) | (encode_m(x.w) << 24u);
  v_codes[quad] = nearest(V, y.x) | (nearest(V, y.y) << 8u) | (nearest(V, y.z) << 16u) | (nearest(V, y.w) << 24u);
}
