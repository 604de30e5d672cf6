// The mask of an operand whose lines are the depth, over its octets as they lie in a tile.

#needs operand_line_$pair operand_last_quad_$pair Octets octet_kept mask_words kept_pair mask_start
#needs DROPS_OPERAND_$pair

// Elements 2 twin and 2 twin + 1 of lines 8 octet to 8 octet + 7 without what the mask drops.
fn operand_masked_$pair(octets: Octets, twin: u32, octet: u32) -> Octets {
  if (!DROPS_OPERAND_$pair) { return octets; }
  let quad = min(twin / 2u, operand_last_quad_$pair());
  #for e in 0..8
    let words_$e = mask_words(mask_start(), operand_line_$pair(8u * octet + $eu) + quad);
    let kept_$e = kept_pair(select(words_$e.x, words_$e.y, twin % 2u == 1u));
  #end
  return Octets(
    octet_kept(octets.first, vec4(kept_0.x, kept_1.x, kept_2.x, kept_3.x), vec4(kept_4.x, kept_5.x, kept_6.x, kept_7.x)),
    octet_kept(octets.second, vec4(kept_0.y, kept_1.y, kept_2.y, kept_3.y), vec4(kept_4.y, kept_5.y, kept_6.y, kept_7.y)),
  );
}
