// What is multiplied: act(gate) * x, element by element. Where each row is gate, then x, both are the same tensor.
// Shazeer 2020.

#needs act x_at

@group(0) @binding(10) var<storage, read> gate: array<X>;   // (rows, x_stride)

// Quads past the end are 0.
fn x_quad(row: u32, q: u32) -> vec4f {
  let at = x_at(row, q);
  let quad = act(load_X(gate[at])) * load_X(x[p.x_stride - p.depth + at]);
  return select(vec4f(), quad, q < p.depth);
}
