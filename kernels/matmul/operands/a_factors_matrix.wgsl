// What the rows of operand A of a product are taken times.

#needs p

@group(0) @binding(13) var<storage, read> a_factors: array<f32>;    // (rows)

fn a_factor(row: u32) -> f32 {
  return a_factors[min(row, p.rows - 1u)];
}
