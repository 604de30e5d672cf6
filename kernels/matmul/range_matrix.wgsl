// Powers of two that bring the operands into the range of f16, and the results back.

@group(0) @binding(8) var<storage, read> largest: array<u32, 2>;  // bits of the largest finite value of A and of B

struct Range { up: f32, down: f32 }

// Brings the largest value to 2^14 .. 2^15: everything down to 2^-29 of it keeps all the bits that f16 has.
fn range_of(bits: u32) -> Range {
  let shift = clamp(141 - i32(bits >> 23u), -126, 126);
  return Range(bitcast<f32>(u32(127 + shift) << 23u), bitcast<f32>(u32(127 - shift) << 23u));
}

fn a_range() -> Range {
  return range_of(largest[0]);
}

fn b_range() -> Range {
  return range_of(largest[1]);
}
