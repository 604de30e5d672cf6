// Operand B of a product in NF4 with lines along the depth: a word (eight weights) of two lines at a time.

#needs b_word b_scale nf4_lookup nf4_begin octet_of Octets

// Its values are in the range of f16.
const B_SCALED_1 = false;

struct RawB_1 { words: vec2u, scales: vec2f }

// Word `octet` of lines 2 twin and 2 twin + 1; 0 from quad `end` of the depth on.
fn b_fetch_1(twin: u32, octet: u32, end: u32) -> RawB_1 {
  let q = 2u * octet;
  if (q >= end) { return RawB_1(); }
  return RawB_1(
    vec2u(b_word(2u * twin, q), b_word(2u * twin + 1u, q)),
    vec2f(b_scale(2u * twin, q), b_scale(2u * twin + 1u, q)),
  );
}

fn b_most_1(most: vec4i, raw: RawB_1) -> vec4i {
  return most;
}

fn b_octet(word: u32, scale: f32) -> vec4u {
  let shifts = vec4u(4u, 0u, 12u, 8u);
  return octet_of(nf4_lookup(vec4u(word) >> shifts) * scale, nf4_lookup(vec4u(word >> 16u) >> shifts) * scale);
}

fn b_octets_1(raw: RawB_1, up: f32, twin: u32, octet: u32) -> Octets {
  return Octets(b_octet(raw.words.x, raw.scales.x), b_octet(raw.words.y, raw.scales.y));
}

fn b_begin(thread: u32) {
  nf4_begin(thread);
}
