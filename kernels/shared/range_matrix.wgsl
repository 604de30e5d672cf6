// Powers of two that bring values into the range of f16, and results back.

struct Range { up: f32, down: f32 }

// Brings a magnitude with these bits to 2^14 .. 2^15: what is down to 2^-28 of it keeps the 11 bits that f16 has.
fn range_of(is_scaled: bool, bits: u32) -> Range {
  let shift = select(0, clamp(141 - i32(bits >> 23u), -126, 126), is_scaled);
  return Range(bitcast<f32>(u32(127 + shift) << 23u), bitcast<f32>(u32(127 - shift) << 23u));
}
