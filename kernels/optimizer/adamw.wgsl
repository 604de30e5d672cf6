// AdamW (Loshchilov & Hutter 2019, algorithm 2, as PyTorch computes it), in place:
//   m += (g - m) (1 - beta1),   v += (g^2 - v) (1 - beta2),
//   param -= lr weight_decay param + step_size m / (sqrt(v) / sqrt(1 - beta2^t) + eps).
// The gradient is first multiplied by the factor in `status`; if that says that a gradient was not finite,
// nothing changes.
//
// Grid: one thread per quad, wrapped.

struct Params {
  quads: u32,
  one_minus_beta1: f32,
  one_minus_beta2: f32,
  step_size: f32,          // lr / (1 - beta1^t)
  inverse_root: f32,       // 1 / sqrt(1 - beta2^t)
  epsilon: f32,
  decay: f32,              // lr * weight_decay
}

@group(0) @binding(0) var<storage, read_write> param: array<vec4f>;
@group(0) @binding(1) var<storage, read> grad: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> m: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> v: array<vec4f>;
@group(0) @binding(4) var<storage, read> status: array<f32>;    // (3): [1] is 1 if all is finite, [2] the factor
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads || status[1] != 1.0) { return; }
  let g = grad[i] * status[2];
  let old_m = m[i];
  let old_v = v[i];
  let new_m = old_m + (g - old_m) * p.one_minus_beta1;
  let new_v = old_v + (g * g - old_v) * p.one_minus_beta2;
  m[i] = new_m;
  v[i] = new_v;
  let w = param[i];
  param[i] = w - (p.decay * w + p.step_size * new_m / (sqrt(new_v) * p.inverse_root + p.epsilon));
}
