// The mask of dropout: of the four elements of a quad, those whose random words are not below a threshold are kept. A word
// depends on the key and on the element's number alone, so that the gradient finds the same mask again.

#needs p random_words

// @param stream which of the streams after the key's
// @param quad its number among those that the dispatch is about
fn kept(stream: u32, quad: u32) -> vec4<bool> {
  let low = p.mask_quad + quad;
  let high = p.mask_quad_high + select(0u, 1u, low < quad);
  return random_words(vec2u(p.mask_seed, p.mask_stream + stream), vec2u(low, high)) >= vec4u(p.mask_threshold);
}
