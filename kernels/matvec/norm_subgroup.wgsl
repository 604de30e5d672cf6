// Puts together the squares of the lanes of a subgroup.

#needs squares rstd_of

fn x_factor(row: u32) -> f32 {
  return rstd_of(subgroupAdd(squares[row]));
}
