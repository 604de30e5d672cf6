// RMSNorm over the last axis: y[r, c] = x[r, c] * rstd[r] * (offset + w[c]),
// rstd[r] = 1 / sqrt(mean_c(x[r, c]^2) + eps).   Zhang & Sennrich 2019, eq. 4.
//
// Grid: one workgroup per row, wrapped. Sums in f32.

#needs workgroup_sum
#needs LANES

struct Params { rows: u32, quads: u32, eps: f32, offset: f32 }

@group(0) @binding(0) var<storage, read> x: array<X>;               // (rows, C)
@group(0) @binding(1) var<storage, read> w: array<vec4f>;           // (C)
@group(0) @binding(2) var<storage, read_write> y: array<X>;         // (rows, C)
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;    // (rows)
@group(0) @binding(4) var<uniform> p: Params;                       // quads: C / 4

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

  var squares = vec4f();
  for (var q = lane; q < p.quads; q += LANES) {
    let v = load_X(x[base + q]);
    squares += v * v;
  }
  let sum = workgroup_sum(lane, (squares.x + squares.y) + (squares.z + squares.w));
  let scale = inverseSqrt(sum / f32(4u * p.quads) + p.eps);

  for (var q = lane; q < p.quads; q += LANES) {
    y[base + q] = store_X(load_X(x[base + q]) * scale * (p.offset + w[q]));
  }
  if (lane == 0u) { rstd[row] = scale; }
}
