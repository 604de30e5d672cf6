// Operand A of a product: rows of quads along the depth, `p.a_stride` quads apart, from quad `p.a_offset` of each row.

@group(0) @binding(0) var<storage, read> a: array<A>;

// Quad `rq` of row `row`; rows past the end repeat the last one, whose results are not stored.
fn a_quad(row: u32, rq: u32) -> vec4f {
  return load_A(a[min(row, p.rows - 1u) * p.a_stride + p.a_offset + rq]);
}

// 4 x 4 values: column c holds rows 4 iq .. 4 iq + 3 at depth 4 rq + c.
fn a_block(iq: u32, rq: u32) -> mat4x4f {
  return transpose(
    mat4x4f(a_quad(4u * iq, rq), a_quad(4u * iq + 1u, rq), a_quad(4u * iq + 2u, rq), a_quad(4u * iq + 3u, rq)),
  );
}
