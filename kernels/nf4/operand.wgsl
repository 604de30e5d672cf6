// Operand B of a product in NF4.

@group(0) @binding(2) var<storage, read> b: array<u32>;    // 8 weights a word

fn b_load(q: u32) -> vec4f {
  return nf4_value(nf4_codes(b[q / 2u], q % 2u)) * nf4_scale((p.b_first + q) / 16u);
}
