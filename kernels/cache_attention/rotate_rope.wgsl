// Rotation of new rows by their positions, as rope.wgsl defines it: of queries in place, of keys as they are read.

#needs load_word store_word
#needs D4    // quads of a head

@group(0) @binding(6) var<storage, read_write> q: array<Word>;      // (rows, heads, 2 D4)
@group(0) @binding(7) var<storage, read> cosines: array<vec2f>;     // (P, R / 2)
@group(0) @binding(8) var<storage, read> sines: array<vec2f>;       // (P, R / 2)

// Word `own` rotated with its partner by the angles at `at`. Sign: -1 in the first half of what rotates, 1 in the second.
fn rotated(own: vec2f, partner: vec2f, at: u32, sign: f32) -> vec2f {
  return own * cosines[at] + sign * sines[at] * partner;
}

// Word `at` of the keys, of a row at a position.
fn key_word(at: u32, position: u32) -> vec2f {
  let own = load_word(k[at]);
  let i = at % (2u * D4);
  if (i >= 2u * p.half_words) { return own; }
  let is_first = i < p.half_words;
  let partner = load_word(k[select(at - p.half_words, at + p.half_words, is_first)]);
  return rotated(own, partner, position * p.half_words + i % p.half_words, select(1.0, -1.0, is_first));
}

// Quad `at` of the keys, of a row at a position.
fn key_quad(at: u32, position: u32) -> vec4f {
  return vec4f(key_word(2u * at, position), key_word(2u * at + 1u, position));
}

// Rotates a word of the first half of a query head, and its partner; the id counts them over all heads and rows.
fn rotate_query(id: u32) {
  let i = id % p.half_words;
  let head = id / p.half_words;
  if (head >= p.rows * p.heads) { return; }
  let at = positions[head / p.heads] * p.half_words + i;
  let first = head * 2u * D4 + i;
  let second = first + p.half_words;
  let x1 = load_word(q[first]);
  let x2 = load_word(q[second]);
  q[first] = store_word(rotated(x1, x2, at, -1.0));
  q[second] = store_word(rotated(x2, x1, at, 1.0));
}
