// Operand A of a product: rows of quads along the depth, `p.a_stride` quads apart, from quad `p.a_offset` of each row. A mask
// may drop elements: those count as 0.

#needs a_row a_start mask_start kept
#needs DROPS_A

@group(0) @binding(0) var<storage, read> a: array<A>;

// Quad `rq` of row `row`, as stored.
fn a_raw(row: u32, rq: u32) -> A {
  let at = a_row(row) * p.a_stride + p.a_offset + rq;
  let quad = a[a_start() + at];
  if (DROPS_A) { return store_A(select(vec4f(), load_A(quad), kept(mask_start(), at))); }
  return quad;
}

// Rows 4 iq .. 4 iq + 3 at one quad of depth, as stored.
struct RawA { q0: A, q1: A, q2: A, q3: A }

fn a_fetch(iq: u32, rq: u32) -> RawA {
  return RawA(a_raw(4u * iq, rq), a_raw(4u * iq + 1u, rq), a_raw(4u * iq + 2u, rq), a_raw(4u * iq + 3u, rq));
}

// 4 x 4 values: column e is row 4 iq + e over the depth.
fn a_rows(raw: RawA) -> mat4x4f {
  return mat4x4f(load_A(raw.q0), load_A(raw.q1), load_A(raw.q2), load_A(raw.q3));
}

// 4 x 4 values: column d holds the four rows at depth d.
fn a_columns(raw: RawA) -> mat4x4f {
  return transpose(a_rows(raw));
}
