// Operand B of a product in NF4: rows of `p.b_stride` quads, two to a word.

#needs p b_row nf4_scale

@group(0) @binding(2) var<storage, read> b: array<u32>;    // 8 weights a word

fn b_word(row: u32, q: u32) -> u32 {
  return b[b_row(row) * (p.b_stride / 2u) + q / 2u];
}

// The scale of quad `q` of a row.
fn b_scale(row: u32, q: u32) -> f32 {
  return nf4_scale((p.b_first + b_row(row) * p.b_stride + q) / 16u);
}
