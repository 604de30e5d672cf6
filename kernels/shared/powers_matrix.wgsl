// Powers of two, which operands of matrix units are taken times to be in the range of f16: their sums are scaled exactly.

// 2^exponent, of those whose reciprocals f32 has in full precision.
fn power_of_two(exponent: i32) -> f32 {
  return bitcast<f32>(u32(127 + clamp(exponent, -126, 126)) << 23u);
}

fn exponent_of(power: f32) -> i32 {
  return i32(bitcast<u32>(power) >> 23u) - 127;
}

// The reciprocal of a power of two, exactly; 0 of 0.
fn reciprocal(power: f32) -> f32 {
  return select(0.0, bitcast<f32>((254u << 23u) - bitcast<u32>(power)), power > 0.0);
}
