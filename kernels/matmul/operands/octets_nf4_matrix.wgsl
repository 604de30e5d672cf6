// Operand B of a product in NF4 with lines along the depth: a word (eight weights) of two lines at a time.

#needs b_word b_scale nf4_lookup nf4_begin octet_of Octets

struct RawB { words: vec2u, scales: vec2f }

// Word `octet` of lines 2 pair and 2 pair + 1; 0 from quad `end` of the depth on.
fn b_fetch(pair: u32, octet: u32, end: u32) -> RawB {
  let q = 2u * octet;
  if (q >= end) { return RawB(); }
  return RawB(
    vec2u(b_word(2u * pair, q), b_word(2u * pair + 1u, q)),
    vec2f(b_scale(2u * pair, q), b_scale(2u * pair + 1u, q)),
  );
}

// Its values are in the range of f16.
fn b_most(most: vec4i, raw: RawB) -> vec4i {
  return most;
}

fn b_octet(word: u32, scale: f32) -> vec4u {
  let shifts = vec4u(4u, 0u, 12u, 8u);
  return octet_of(nf4_lookup(vec4u(word) >> shifts) * scale, nf4_lookup(vec4u(word >> 16u) >> shifts) * scale);
}

fn b_octets(raw: RawB, up: f32) -> Octets {
  return Octets(b_octet(raw.words.x, raw.scales.x), b_octet(raw.words.y, raw.scales.y));
}

fn b_begin(thread: u32) {
  nf4_begin(thread);
}
