// Where dense operand B of a product lies in memory: lines of p.b_stride quads, a column of C each, or one of the depth.

#needs p

// First quad of a line; lines past the end repeat the last one.
fn b_line(line: u32) -> u32 {
  return min(line, p.b_rows - 1u) * p.b_stride;
}

// Lines of the depth up to this one count: operand A is 0 past its own.
fn b_limit(end: u32) -> u32 {
  return 4u * end;
}

fn b_last_quad() -> u32 {
  return p.cols - 1u;
}
