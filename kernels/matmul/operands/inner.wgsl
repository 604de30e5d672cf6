// Pair 0 of the operands that a tile sums: the inner product's, both f32, by quads as in quads.wgsl. B has one row per column
// of the result, or one per depth.

#needs p block
#needs B_ALONG

@group(0) @binding(11) var<storage, read> inner_a: array<vec4f>;    // (rows, R)
@group(0) @binding(12) var<storage, read> inner_b: array<vec4f>;    // (columns, R) or (R, columns)

alias A_0 = vec4f;
alias QuadB_0 = vec4f;

fn a_quad_0(iq: u32, e: u32, rq: u32) -> A_0 {
  return inner_a[block * p.inner_a_block + min(4u * iq + e, p.rows - 1u) * p.inner_a_stride + p.inner_a_offset + rq];
}

fn load_A_0(quad: A_0) -> vec4f { return quad; }

fn b_fetch_quad_0(quad: ptr<function, QuadB_0>, jq: u32, e: u32, rq: u32) {
  let first = block * p.inner_b_block;
  if (B_ALONG) {
    *quad = inner_b[first + min(4u * jq + e, 4u * p.cols - 1u) * p.inner_b_stride + rq];
  } else {
    *quad = inner_b[first + (4u * rq + e) * p.inner_b_stride + min(jq, p.cols - 1u)];
  }
}

fn b_value_0(quad: QuadB_0) -> vec4f { return quad; }

// The first of the parts that share the depth sums all of it.
fn span_0(tile: vec3u) -> vec2u {
  return vec2u(0u, select(0u, p.inner_depth, tile.z % p.parts == 0u));
}
