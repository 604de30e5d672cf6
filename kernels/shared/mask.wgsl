// The mask of dropout: of the four elements of a quad, those whose random words are not below a threshold are kept. A word
// depends on the key and on the element's number alone, so that the gradient finds the same mask again.

#needs p random_words random_half

// @param stream which of the streams after the key's
// @param quad its number among those that the dispatch is about
fn kept(stream: u32, quad: u32) -> vec4<bool> {
  return random_words(mask_key(stream), mask_number(quad)) >= vec4u(p.mask_threshold);
}

// The same of the first two elements of a quad (half 0), or of the others.
fn kept_half(stream: u32, quad: u32, half: u32) -> vec2<bool> {
  return random_half(mask_key(stream), mask_number(quad), half) >= vec2u(p.mask_threshold);
}

fn mask_key(stream: u32) -> vec2u {
  return vec2u(p.mask_seed, p.mask_stream + stream);
}

fn mask_number(quad: u32) -> vec2u {
  let low = p.mask_quad + quad;
  return vec2u(low, p.mask_quad_high + select(0u, 1u, low < quad));
}
