// The mask of an operand whose lines are the depth, over its octets as they lie in a tile.

#needs operand_line_$pair operand_last_quad_$pair Octets octet_kept mask_words kept_pair mask_start
#needs DROPS_OPERAND_$pair
#needs OCTETS    // along the depth of a tile: so many lanes away is the other half of the quads

// Elements 2 twin and 2 twin + 1 of lines 8 octet to 8 octet + 7 without what the mask drops. Called by all lanes.
fn operand_masked_$pair(octets: Octets, twin: u32, octet: u32) -> Octets {
  if (!DROPS_OPERAND_$pair) { return octets; }
  let quad = min(twin / 2u, operand_last_quad_$pair());
  // The first half draws for four of the lines, the second for the other four: each gives the other its words.
  let is_second = twin % 2u == 1u;
  #for e in 0..4
    let words_$e = mask_words(mask_start(), operand_line_$pair(8u * octet + select(0u, 4u, is_second) + $eu) + quad);
    let own_$e = select(words_$e.x, words_$e.y, is_second);
    let given_$e = subgroupShuffleXor(select(words_$e.y, words_$e.x, is_second), OCTETS);
    let early_$e = kept_pair(select(own_$e, given_$e, is_second));
    let late_$e = kept_pair(select(given_$e, own_$e, is_second));
  #end
  return Octets(
    octet_kept(octets.first, vec4(early_0.x, early_1.x, early_2.x, early_3.x), vec4(late_0.x, late_1.x, late_2.x, late_3.x)),
    octet_kept(octets.second, vec4(early_0.y, early_1.y, early_2.y, early_3.y), vec4(late_0.y, late_1.y, late_2.y, late_3.y)),
  );
}
