// What tiles on matrix units ask of the operands of an inner product (pair 0) besides their lines: both come from f32, and
// no mask drops elements of them.

#needs p

const A_SCALED_0 = true;
const B_SCALED_0 = true;
const DROPS_A_0 = false;
const DROPS_B_0 = false;

// Quad of the operand that the block begins with: lines have it in them.
fn a_start_0() -> u32 { return 0u; }

fn b_start_0() -> u32 { return 0u; }

// Lines of the depth up to this one count.
fn b_limit_0(end: u32) -> u32 { return 4u * end; }

fn b_last_quad_0() -> u32 { return p.cols - 1u; }
