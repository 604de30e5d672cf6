// The mask of dropout: of the four elements of a quad, those whose random numbers are not below a threshold are kept. The
// numbers have 16 bits, so that one call of Threefry serves a quad. They depend on the key and on the element's number
// alone, so that the gradient finds the same mask again.

#needs p threefry

// @param stream which of the streams after the key's
// @param quad its number among those that the dispatch is about
fn kept(stream: u32, quad: u32) -> vec4<bool> {
  let words = mask_words(stream, quad);
  return vec4(kept_pair(words.x), kept_pair(words.y));
}

// The random numbers of the first two elements of a quad, and of the others: the earlier in the lower half of a word.
fn mask_words(stream: u32, quad: u32) -> vec2u {
  let low = p.mask_quad + quad;
  return threefry(
    vec2u(p.mask_seed, p.mask_stream + stream),
    vec2u(low, p.mask_quad_high + select(0u, 1u, low < quad)),
  );
}

// Which of two elements with these numbers are kept. The threshold is 2^16 times that of a number: what is below the upper
// half of a word decides nothing.
fn kept_pair(word: u32) -> vec2<bool> {
  return vec2u(word << 16u, word) >= vec2u(p.mask_threshold);
}
