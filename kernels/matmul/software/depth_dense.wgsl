// The loop of a subgroup's tile along the depth, operand B dense.

#needs RawB b_fetch add_block b_columns

fn accumulate(sums: ptr<function, Sums>, tile_row: u32, jq: u32, lane: u32, begin: u32, end: u32) {
  for (var rq = begin; rq < end; rq++) {
    var raw = RawB();
    b_fetch(&raw, jq, rq);
    add_block(sums, tile_row, lane, rq, b_columns(raw));
  }
}
