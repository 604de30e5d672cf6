// Operand A of a product, transposed in memory: one row per depth, quads along the rows of the result.

@group(0) @binding(0) var<storage, read> a: array<A>;

// Rows 4 iq .. 4 iq + 3 at one depth; 0 past the end of either.
fn a_quad(depth: u32, iq: u32) -> vec4f {
  let inside = depth < p.depth_rows && 4u * iq < p.rows;
  let quad = load_A(a[min(depth, p.depth_rows - 1u) * p.a_stride + p.a_offset + min(iq, (p.rows - 1u) / 4u)]);
  return select(vec4f(), quad, inside);
}

// 4 x 4 values: column c holds rows 4 iq .. 4 iq + 3 at depth 4 rq + c.
fn a_block(iq: u32, rq: u32) -> mat4x4f {
  return mat4x4f(a_quad(4u * rq, iq), a_quad(4u * rq + 1u, iq), a_quad(4u * rq + 2u, iq), a_quad(4u * rq + 3u, iq));
}
