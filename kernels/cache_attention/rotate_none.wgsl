// New rows of a layer that does not rotate.

#needs load_word

fn key_quad(at: u32, position: u32) -> vec4f {
  return vec4f(load_word(k[2u * at]), load_word(k[2u * at + 1u]));
}

fn rotate_query(id: u32) {}
