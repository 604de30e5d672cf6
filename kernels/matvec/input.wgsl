// What is multiplied: x itself. Quads past the end are 0.

fn x_quad(row: u32, q: u32) -> vec4f {
  return select(vec4f(), load_X(x[x_at(row, q)]), q < p.depth);
}

fn x_share(thread: u32) {}

fn x_fold(thread: u32) {}

fn x_factor(row: u32) -> f32 {
  return 1.0;
}
