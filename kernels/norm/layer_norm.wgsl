// LayerNorm over the last axis: y[r, c] = (x[r, c] - mean[r]) * rstd[r] * w[c] + b[c],
// rstd[r] = 1 / sqrt(mean_c((x[r, c] - mean[r])^2) + eps).   Ba et al. 2016.
//
// Grid: one workgroup per row, wrapped. Sums in f32; the variance is that of differences, which cancels nothing.

#needs workgroup_sum
#needs LANES

struct Params { rows: u32, quads: u32, eps: f32 }

@group(0) @binding(0) var<storage, read> x: array<X>;               // (rows, C)
@group(0) @binding(1) var<storage, read> w: array<vec4f>;           // (C)
@group(0) @binding(2) var<storage, read> b: array<vec4f>;           // (C)
@group(0) @binding(3) var<storage, read_write> y: array<X>;         // (rows, C)
@group(0) @binding(4) var<storage, read_write> stats: array<vec2f>; // (rows) mean, rstd
@group(0) @binding(5) var<uniform> p: Params;                       // quads: C / 4

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
  let width = f32(4u * p.quads);

  var total = vec4f();
  for (var q = lane; q < p.quads; q += LANES) {
    total += load_X(x[base + q]);
  }
  let mean = workgroup_sum(lane, (total.x + total.y) + (total.z + total.w)) / width;

  var squares = vec4f();
  for (var q = lane; q < p.quads; q += LANES) {
    let v = load_X(x[base + q]) - mean;
    squares += v * v;
  }
  let sum = workgroup_sum(lane, (squares.x + squares.y) + (squares.z + squares.w));
  let rstd = inverseSqrt(sum / width + p.eps);

  for (var q = lane; q < p.quads; q += LANES) {
    y[base + q] = store_X((load_X(x[base + q]) - mean) * rstd * w[q] + b[q]);
  }
  if (lane == 0u) { stats[row] = vec2f(mean, rstd); }
}
