// Powers of two that bring the operands of a product into the range of f16, and its result back.

override A_SCALED: bool;            // f16 and NF4 are in range as they are
override B_SCALED: bool;

@group(0) @binding(8) var<storage, read> largest: array<u32>;  // bits of the largest finite magnitude in A, and in B

struct Range { up: f32, down: f32 }

// Brings the largest magnitude to 2^14 .. 2^15: what is down to 2^-28 of it keeps the 11 bits that f16 has.
fn range_of(is_scaled: bool, bits: u32) -> Range {
  let shift = select(0, clamp(141 - i32(bits >> 23u), -126, 126), is_scaled);
  return Range(bitcast<f32>(u32(127 + shift) << 23u), bitcast<f32>(u32(127 - shift) << 23u));
}

fn a_range() -> Range {
  return range_of(A_SCALED, largest[0]);
}

fn b_range() -> Range {
  return range_of(B_SCALED, largest[1]);
}
