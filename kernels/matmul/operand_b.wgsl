// Operand B of a product: one row per column of the result, quads along the depth.

fn b_quad(row: u32, rq: u32) -> vec4f {
  return b_load(min(row, p.b_rows - 1u) * p.b_stride + rq);
}

// 4 x 4 values: column c holds result columns 4 jq .. 4 jq + 3 at depth 4 rq + c.
fn b_block(jq: u32, rq: u32) -> mat4x4f {
  return transpose(
    mat4x4f(b_quad(4u * jq, rq), b_quad(4u * jq + 1u, rq), b_quad(4u * jq + 2u, rq), b_quad(4u * jq + 3u, rq)),
  );
}
