// Quads of both operands by their place in a tile: quad `rq` of the depth, and of four rows or columns the e-th, where
// quads lie along the depth; else the four of them at the e-th depth. Four quads in the order of e make a block.

#needs a_raw
#needs A_ALONG B_ALONG

fn a_quad(iq: u32, e: u32, rq: u32) -> A {
  if (A_ALONG) { return a_raw(4u * iq + e, rq); }
  return a_raw(4u * rq + e, iq);
}

// 4 x 4 values: column d holds the four rows at depth d.
fn a_block(quads: mat4x4f) -> mat4x4f {
  if (A_ALONG) { return transpose(quads); }
  return quads;
}

// 4 x 4 values: column d holds the four columns at depth d.
fn b_block(quads: mat4x4f) -> mat4x4f {
  if (B_ALONG) { return transpose(quads); }
  return quads;
}
