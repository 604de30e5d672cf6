// A head in 8 bits: D4 words of four codes from -127 to 127, the earlier one in the lower byte, and then the head's
// scale s as f32. Elements are code * s, with s = max |x| / 127.

#needs D4    // quads of a head

alias C = u32;

// Words of a head.
const HEAD = D4 + 1u;

// Codes of a quad, not yet scaled.
fn load_C(word: u32) -> vec4f {
  return vec4f(bitcast<vec4i>(vec4u(word) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));
}

// The nearest codes.
fn store_C(v: vec4f) -> u32 {
  let bytes = bitcast<vec4u>(vec4i(clamp(round(v), vec4f(-127.0), vec4f(127.0)))) & vec4u(0xffu);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
