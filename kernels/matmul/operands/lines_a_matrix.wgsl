// Where operand A of a product (pair 1) lies in memory: lines of p.a_stride quads, a row of C each, or one of the depth.

#needs p a_start depth_of
#needs A_ALONG     // whether a line lies along the depth, else it is one of the depth
#needs A_SCALED    // whether it is brought into the range of f16; else it is f16
#needs DROPS_A     // whether a mask drops elements of it

alias A_1 = A;
const A_SCALED_1 = A_SCALED;
const DROPS_A_1 = DROPS_A;

fn load_A_1(quad: A_1) -> vec4f { return load_A(quad); }

// Quad that the block begins with.
fn a_start_1() -> u32 { return a_start(); }

// First quad of a line, counted from there; lines past the end repeat the last one.
fn a_line_1(line: u32) -> u32 {
  return min(line, select(p.depth_rows, p.rows, A_ALONG) - 1u) * p.a_stride + p.a_offset;
}

// Lines of the depth up to this one count.
fn a_limit_1(end: u32) -> u32 { return min(4u * end, p.depth_rows); }

fn a_last_quad_1() -> u32 { return (p.rows - 1u) / 4u; }

fn span_1(tile: vec3u) -> vec2u { return depth_of(tile); }
