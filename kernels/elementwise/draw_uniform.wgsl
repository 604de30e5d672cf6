// Uniform in [low, low + span): 24 random bits of each word, which f32 holds exactly.
fn draw(words: vec4u) -> X {
  return store_X(p.low + p.span * (vec4f(words >> vec4u(8u)) * 5.9604644775390625e-8));
}
