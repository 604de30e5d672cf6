// Which rows of its operands a product takes: all of them, in their order. Past the end the last one stands in, whose
// results are not stored.

#needs p block

// Called by every thread, first.
fn product_begin(tile: vec3u) {
  block = tile.z / p.parts;
}

// Quads along the depth that a tile sums, from the first to before the last: a part of them all.
fn depth_of(tile: vec3u) -> vec2u {
  let part = tile.z % p.parts;
  return vec2u(part * p.span, min((part + 1u) * p.span, p.depth));
}

// Quad of A, and of B, that the block begins with.
fn a_start() -> u32 {
  return block * p.a_block;
}

fn b_start() -> u32 {
  return block * p.b_block;
}

// The block's stream of random numbers, from that of the first on.
fn mask_start() -> u32 {
  return block * p.mask_step;
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
