// By how much the operands of a product are scaled (shared/range_matrix.wgsl).

#needs range_of
#needs B_SCALED
#needs A_SCALED    // f16 and NF4 are in range as they are

@group(0) @binding(8) var<storage, read> largest: array<u32>;  // bits of the largest finite magnitude in A, and in B

fn a_range() -> Range {
  return range_of(A_SCALED, largest[0]);
}

fn b_range() -> Range {
  return range_of(B_SCALED, largest[1]);
}
