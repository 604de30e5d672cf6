// The mask of an operand with lines along the depth, over its octets as they lie in a tile.

#needs operand_line_$pair Octets octet_kept kept mask_start
#needs DROPS_OPERAND_$pair

// Octet `octet` of lines 2 twin and 2 twin + 1 without what the mask drops.
fn operand_masked_$pair(octets: Octets, twin: u32, octet: u32) -> Octets {
  if (!DROPS_OPERAND_$pair) { return octets; }
  let first = operand_line_$pair(2u * twin) + 2u * octet;
  let second = operand_line_$pair(2u * twin + 1u) + 2u * octet;
  return Octets(
    octet_kept(octets.first, kept(mask_start(), first), kept(mask_start(), first + 1u)),
    octet_kept(octets.second, kept(mask_start(), second), kept(mask_start(), second + 1u)),
  );
}
