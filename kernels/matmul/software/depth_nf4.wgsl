// The loop of a subgroup's tile along the depth, operand B in NF4 with one row per column of the result: a word holds
// eight depths of one column. Scales are read once a block where every row starts with a block.

#needs nf4_begin b_scale b_word nf4_lookup add_block
#needs STRETCH    // quads that share a scale, from the first of a row on

fn accumulate(sums: ptr<function, Sums>, tile_row: u32, jq: u32, lane: u32, begin: u32, end: u32) {
  nf4_begin(lane);
  for (var first = begin; first < end; first += STRETCH) {
    let scales = vec4f(
      b_scale(4u * jq, first), b_scale(4u * jq + 1u, first), b_scale(4u * jq + 2u, first), b_scale(4u * jq + 3u, first),
    );
    for (var word = first; word < min(first + STRETCH, end); word += 2u) {
      var codes = vec4u(
        b_word(4u * jq, word), b_word(4u * jq + 1u, word), b_word(4u * jq + 2u, word), b_word(4u * jq + 3u, word),
      );
      for (var half = 0u; half < 2u; half++) {
        let block = mat4x4f(
          nf4_lookup(codes >> vec4u(4u)) * scales,
          nf4_lookup(codes) * scales,
          nf4_lookup(codes >> vec4u(12u)) * scales,
          nf4_lookup(codes >> vec4u(8u)) * scales,
        );
        add_block(sums, tile_row, lane, word + half, block);
        codes = codes >> vec4u(16u);
      }
    }
  }
}
