// From the sum of squares of all gradients to what the optimiser reads:
// status[0] = norm, status[1] = 1 if it is finite and 0 if not, status[2] = factor for the gradients,
// which follows PyTorch's clip_grad_norm_: inverse_scale * min(1, max_norm / (norm + 1e-6)).
//
// Grid: one thread.

struct Params { max_norm: f32, inverse_scale: f32 }

@group(0) @binding(0) var<storage, read> squares: array<f32>;           // (1)
@group(0) @binding(1) var<storage, read_write> status: array<f32>;      // (3)
@group(0) @binding(2) var<uniform> p: Params;                           // max_norm 0: no clipping

@compute @workgroup_size(1)
fn main() {
  let norm = sqrt(squares[0]) * p.inverse_scale;
  // By its bits: compilers may take for granted that no value is NaN.
  let is_finite = (bitcast<u32>(norm) & 0x7f800000u) != 0x7f800000u;
  let clip = select(1.0, min(1.0, p.max_norm / (norm + 1e-6)), p.max_norm > 0.0);
  status[0] = norm;
  status[1] = select(0.0, 1.0, is_finite);
  status[2] = select(0.0, p.inverse_scale * clip, is_finite);
}
