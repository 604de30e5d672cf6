// The random words themselves.
fn draw(words: vec4u) -> vec4u {
  return words;
}
