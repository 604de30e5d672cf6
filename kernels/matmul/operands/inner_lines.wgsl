// Where the operands of an inner product (pair 0) lie, both f32. Lines of A are rows of C along the depth; lines of B are a
// column of C each, or one of the depth.

#needs p block
#needs B_ALONG    // whether lines of B lie along the depth

alias A_0 = vec4f;
alias B_0 = vec4f;

fn load_A_0(quad: A_0) -> vec4f { return quad; }

fn load_B_0(quad: B_0) -> vec4f { return quad; }

// First quad of a line; lines past the end repeat the last one.
fn a_line_0(line: u32) -> u32 {
  return block * p.inner_a_block + min(line, p.rows - 1u) * p.inner_a_stride + p.inner_a_offset;
}

fn b_line_0(line: u32) -> u32 {
  let lines = select(4u * p.inner_depth, p.b_rows, B_ALONG);
  return block * p.inner_b_block + min(line, lines - 1u) * p.inner_b_stride;
}

// The first of the parts that share the depth sums all of it.
fn span_0(tile: vec3u) -> vec2u {
  return vec2u(0u, select(0u, p.inner_depth, tile.z % p.parts == 0u));
}
