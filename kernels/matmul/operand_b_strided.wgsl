// Operand B of a product, transposed in memory: one row per depth, quads along the columns of the result.

// Rows past the end repeat the last one: operand A is 0 there.
fn b_quad(depth: u32, jq: u32) -> vec4f {
  return b_load(min(depth, p.b_rows - 1u) * p.b_stride + min(jq, p.cols - 1u));
}

// 4 x 4 values: column c holds result columns 4 jq .. 4 jq + 3 at depth 4 rq + c.
fn b_block(jq: u32, rq: u32) -> mat4x4f {
  return mat4x4f(b_quad(4u * rq, jq), b_quad(4u * rq + 1u, jq), b_quad(4u * rq + 2u, jq), b_quad(4u * rq + 3u, jq));
}
