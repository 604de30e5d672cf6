// No factor of a row's sums.

fn x_share(thread: u32) {}

fn x_fold(thread: u32) {}

fn x_factor(row: u32) -> f32 {
  return 1.0;
}
