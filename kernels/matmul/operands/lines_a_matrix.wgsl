// Where operand A of a product lies in memory: lines of p.a_stride quads, a row of C each, or one of the depth.

#needs p
#needs A_TURNED    // whether a line is one of the depth

// First quad of a line; lines past the end repeat the last one.
fn a_line(line: u32) -> u32 {
  return min(line, select(p.rows, p.depth_rows, A_TURNED) - 1u) * p.a_stride + p.a_offset;
}

// Lines of the depth up to this one count.
fn a_limit(end: u32) -> u32 {
  return min(4u * end, p.depth_rows);
}

fn a_last_quad() -> u32 {
  return (p.rows - 1u) / 4u;
}
