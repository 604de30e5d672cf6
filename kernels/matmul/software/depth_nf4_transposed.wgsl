// The loop of a subgroup's tile along the depth, operand B in NF4 with one row per depth: a word holds eight columns,
// two lanes' worth, of one depth. Each of two neighbours loads half of what both need. Where all lanes of
// a tile need the same scales, each loads one of eight.

#needs nf4_begin b_scale b_word nf4_lookup add_block
#needs STRETCH    // quads that share a scale, from the first of a row on

fn accumulate(sums: ptr<function, Sums>, tile_row: u32, jq: u32, lane: u32, begin: u32, end: u32) {
  nf4_begin(lane);
  let column = min(jq, p.cols - 1u);
  let odd = lane % 2u;
  for (var first = begin; first < end; first += 2u) {
    var shared_scale = 0.0;
    if (STRETCH >= 8u) {
      shared_scale = b_scale(4u * first + lane, column);
    }
    for (var half = 0u; half < min(2u, end - first); half++) {
      let depth = 4u * (first + half);
      let mine = vec2u(b_word(depth + 2u * odd, column), b_word(depth + 2u * odd + 1u, column));
      let other = subgroupShuffleXor(mine, 1u);
      let codes = select(vec4u(mine, other), vec4u(other, mine), vec4<bool>(odd == 1u)) >> vec4u(16u * (jq % 2u));
      #for d in 0..4
        var scale$d = subgroupShuffle(shared_scale, 4u * half + $du);
        if (STRETCH < 8u) {
          scale$d = b_scale(depth + $du, column);
        }
        let column$d = nf4_lookup(vec4u(codes[$d]) >> vec4u(4u, 0u, 12u, 8u)) * scale$d;
      #end
      add_block(sums, tile_row, lane, first + half, mat4x4f(column0, column1, column2, column3));
    }
  }
}
