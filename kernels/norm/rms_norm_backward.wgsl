// Gradient of RMSNorm to its input, with h = x * rstd and g = dy * (offset + w):
// dx[r, c] = rstd[r] * (g[r, c] - h[r, c] * mean_c(g * h)), written, or added to what is there if ADD.
//
// Grid: one workgroup per row, wrapped. Sums in f32.

#needs workgroup_sum
#needs LANES ADD

struct Params { rows: u32, quads: u32, offset: f32 }

@group(0) @binding(0) var<storage, read> dy: array<Y>;             // (rows, C)
@group(0) @binding(1) var<storage, read> x: array<X>;              // (rows, C)
@group(0) @binding(2) var<storage, read> w: array<vec4f>;          // (C)
@group(0) @binding(3) var<storage, read> stats: array<f32>;        // (rows)
@group(0) @binding(4) var<storage, read_write> dx: array<D>;       // (rows, C)
@group(0) @binding(5) var<uniform> p: Params;                      // quads: C / 4

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
  let scale = stats[row];

  var dots = vec4f();
  for (var q = lane; q < p.quads; q += LANES) {
    dots += load_Y(dy[base + q]) * (p.offset + w[q]) * (load_X(x[base + q]) * scale);
  }
  let mean = workgroup_sum(lane, (dots.x + dots.y) + (dots.z + dots.w)) / f32(4u * p.quads);

  for (var q = lane; q < p.quads; q += LANES) {
    let h = load_X(x[base + q]) * scale;
    var v = scale * (load_Y(dy[base + q]) * (p.offset + w[q]) - h * mean);
    if (ADD) { v += load_D(dx[base + q]); }
    dx[base + q] = store_D(v);
  }
}
