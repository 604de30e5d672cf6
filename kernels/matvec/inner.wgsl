// A product of little depth that is added to the sums of a part: inner_x B^T, with the quads of the depth from `first` on,
// every `step`th.

#needs b_row

@group(0) @binding(11) var<storage, read> inner_x: array<vec4f>;    // (rows, inner_stride)
@group(0) @binding(12) var<storage, read> inner_b: array<vec4f>;    // of each part (b_rows, inner_depth)

fn inner_sum(row: u32, nq: u32, first: u32, step: u32) -> vec4f {
  let base = min(row, p.rows - 1u) * p.inner_stride + part.inner_first;
  var sum = vec4f();
  for (var r = first; r < part.inner_depth; r += step) {
    let h = inner_x[base + r];
    #for n in 0..4
      sum[$n] += dot(h, inner_b[part.inner_b_first + b_row(4u * nq + $nu) * part.inner_depth + r]);
    #end
  }
  return sum;
}
