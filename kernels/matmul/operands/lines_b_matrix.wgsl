// Where dense operand B of a product (pair 1) lies in memory: lines of p.b_stride quads, a column of C each, or one of the
// depth.

#needs p b_start
#needs B_SCALED    // whether it is brought into the range of f16; else it is f16
#needs DROPS_B     // whether a mask drops elements of it

alias B_1 = B;
const B_SCALED_1 = B_SCALED;
const DROPS_B_1 = DROPS_B;

fn load_B_1(quad: B_1) -> vec4f { return load_B(quad); }

// Quad that the block begins with.
fn b_start_1() -> u32 { return b_start(); }

// First quad of a line, counted from there; lines past the end repeat the last one.
fn b_line_1(line: u32) -> u32 {
  return min(line, p.b_rows - 1u) * p.b_stride + p.b_first;
}

// Lines of the depth up to this one count: operand A is 0 past its own.
fn b_limit_1(end: u32) -> u32 { return 4u * end; }

fn b_last_quad_1() -> u32 { return p.cols - 1u; }
