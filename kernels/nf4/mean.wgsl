// Mean of a vector into the first element of `out`: 256 strided sums, then a tree, in a fixed order.
//
// Grid: one workgroup.

struct Params { length: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
  // Kahan's compensated sum: a 7B model has 700,000 blocks in a matrix.
  var sum = 0.0;
  var lost = 0.0;
  for (var i = thread; i < p.length; i += 256u) {
    let term = x[i] - lost;
    let next = sum + term;
    lost = (next - sum) - term;
    sum = next;
  }
  partial[thread] = sum;
  workgroupBarrier();
  for (var stride = 128u; stride > 0u; stride /= 2u) {
    if (thread < stride) {
      partial[thread] += partial[thread + stride];
    }
    workgroupBarrier();
  }
  if (thread == 0u) {
    out[0] = partial[0] / f32(p.length);
  }
}
