// Pair 0 of the operands that a tile sums, the inner product's, by quads as in quads.wgsl.

#needs p a_line_0 b_line_0 A_0 B_0 load_B_0
#needs B_ALONG

@group(0) @binding(11) var<storage, read> inner_a: array<A_0>;    // (rows, R)
@group(0) @binding(12) var<storage, read> inner_b: array<B_0>;    // (columns, R) or (R, columns)

alias QuadB_0 = B_0;

fn a_quad_0(iq: u32, e: u32, rq: u32) -> A_0 { return inner_a[a_line_0(4u * iq + e) + rq]; }

fn b_fetch_quad_0(quad: ptr<function, QuadB_0>, jq: u32, e: u32, rq: u32) {
  if (B_ALONG) { *quad = inner_b[b_line_0(4u * jq + e) + rq]; }
  else { *quad = inner_b[b_line_0(4u * rq + e) + min(jq, p.cols - 1u)]; }
}

fn b_value_0(quad: QuadB_0) -> vec4f { return load_B_0(quad); }
