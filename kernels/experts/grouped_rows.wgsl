// A product of rows with the matrices of their experts, y = x W[e]^T, or dx = dy W[e] where B_TRANSPOSED: each workgroup's
// rows are a tile of the table, so of one expert. Tiles without rows do nothing.
//
// Grid: x = tiles of the table.

#needs p add_to_c table group_expert group_begin group_end
#needs TILE_ROWS
#needs A_BY_TOKEN      // whether A has a row for each token, not for each row of the table
#needs B_TRANSPOSED

var<private> tile_row: u32;
var<private> span_begin: u32;

fn product_begin(tile: vec3u) {
  let at = p.tiles_at + 3u * (p.first + tile.x);
  group_expert = table[at];
  group_begin = table[at + 1u];
  group_end = table[at + 2u];
  tile_row = tile.x * TILE_ROWS;
  span_begin = depth_of(tile).x;
}

fn depth_of(tile: vec3u) -> vec2u {
  let at = p.tiles_at + 3u * (p.first + tile.x);
  let first = table[at] * p.outputs;
  let begin = max(first, p.part_begin);
  let end = min(first + p.outputs, p.part_end);
  if (table[at + 1u] >= table[at + 2u] || begin >= end) { return vec2u(); }
  if (B_TRANSPOSED) { return vec2u((begin - first) / 4u, (end - first + 3u) / 4u); }
  return vec2u(0u, p.depth);
}

fn a_row(row: u32) -> u32 {
  let sorted = min(group_begin + row - tile_row, group_end - 1u);
  if (A_BY_TOKEN) { return table[sorted]; }
  return sorted;
}

fn b_row(row: u32) -> u32 {
  let in_part = clamp(group_expert * p.outputs + min(row, p.outputs - 1u), p.part_begin, p.part_end - 1u);
  return in_part - p.part_begin;
}

fn store(part: u32, row: u32, jq: u32, sum: vec4f) {
  let sorted = group_begin + row - tile_row;
  let first = group_expert * p.outputs;
  if (sorted >= group_end || jq >= p.cols) { return; }
  if (B_TRANSPOSED) {
    // Of a matrix that begins in another binding, the first part is there already.
    if (first + p.outputs <= p.part_begin || first >= p.part_end) { return; }
    add_to_c(sorted * p.c_stride + jq, sum, select(p.beta, 1.0, span_begin > 0u));
  } else if (first + 4u * jq >= p.part_begin && first + 4u * jq < p.part_end) {
    add_to_c(sorted * p.c_stride + jq, sum, p.beta);
  }
}
