// The result of a product whose depth was summed in parts: C = alpha (part 0 + part 1 + ...) + beta C, in that order.
//
// Grid: x * 64 + thread quads of C, wrapped.

struct Params {
  parts: u32,
  rows: u32,
  cols: u32,          // quads of a row
  c_stride: u32,
  c_offset: u32,
  alpha: f32,
  beta: f32,
}

@group(0) @binding(0) var<storage, read> sums: array<vec4f>;        // (parts, rows, cols)
@group(0) @binding(1) var<storage, read_write> c: array<C>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let q = (group.y * groups.x + group.x) * 64u + thread;
  let quads = p.rows * p.cols;
  if (q >= quads) {
    return;
  }
  var sum = sums[q];
  for (var part = 1u; part < p.parts; part++) {
    sum += sums[part * quads + q];
  }
  let at = (q / p.cols) * p.c_stride + p.c_offset + q % p.cols;
  var value = p.alpha * sum;
  if (p.beta != 0.0) {
    value += p.beta * load_C(c[at]);
  }
  c[at] = store_C(value);
}
