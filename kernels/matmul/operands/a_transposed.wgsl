// Operand A of a product, transposed in memory: one row per depth, quads along the rows of the result.

#needs a_depth has_depth a_start

@group(0) @binding(0) var<storage, read> a: array<A>;

// Rows 4 iq .. 4 iq + 3 at one depth, as stored; 0 past the end of either.
fn a_raw(depth: u32, iq: u32) -> A {
  let inside = has_depth(depth) && 4u * iq < p.rows;
  let quad = a[a_start() + a_depth(depth) * p.a_stride + p.a_offset + min(iq, (p.rows - 1u) / 4u)];
  return select(A(), quad, inside);
}

// Rows 4 iq .. 4 iq + 3 at one quad of depth, as stored.
struct RawA { q0: A, q1: A, q2: A, q3: A }

fn a_fetch(iq: u32, rq: u32) -> RawA {
  return RawA(a_raw(4u * rq, iq), a_raw(4u * rq + 1u, iq), a_raw(4u * rq + 2u, iq), a_raw(4u * rq + 3u, iq));
}

// 4 x 4 values: column e is row 4 iq + e over the depth.
fn a_rows(raw: RawA) -> mat4x4f {
  return transpose(a_columns(raw));
}

// 4 x 4 values: column d holds the four rows at depth d.
fn a_columns(raw: RawA) -> mat4x4f {
  return mat4x4f(load_A(raw.q0), load_A(raw.q1), load_A(raw.q2), load_A(raw.q3));
}
