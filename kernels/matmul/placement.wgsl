// Which rows of its operands a product takes: all of them, in their order. Past the end the last one stands in, whose
// results are not stored.

#needs p

// Called by every thread, first.
fn product_begin(tile: vec3u) {}

// Quads along the depth that a tile sums, from the first to before the last: a part of them all.
fn depth_of(tile: vec3u) -> vec2u {
  return vec2u(tile.z * p.span, min((tile.z + 1u) * p.span, p.depth));
}

// Row of A in memory, for a row of C.
fn a_row(row: u32) -> u32 {
  return min(row, p.rows - 1u);
}

// Row of a transposed A in memory, for a depth, and whether there is one.
fn a_depth(depth: u32) -> u32 {
  return min(depth, p.depth_rows - 1u);
}

fn has_depth(depth: u32) -> bool {
  return depth < p.depth_rows;
}

// Row of B in memory, for a column of C; of a transposed B for a depth.
fn b_row(row: u32) -> u32 {
  return min(row, p.b_rows - 1u);
}
