// What is multiplied: x itself. Quads past the end are 0.

#needs x_at

fn x_quad(row: u32, q: u32) -> vec4f {
  return select(vec4f(), load_X(x[x_at(row, q)]), q < p.depth);
}
