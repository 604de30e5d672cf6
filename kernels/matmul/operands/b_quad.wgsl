// A quad of dense operand B, by its place in a tile (quads.wgsl).

#needs b_raw
#needs B_ALONG

alias QuadB = B;

fn b_fetch_quad(quad: ptr<function, QuadB>, jq: u32, e: u32, rq: u32) {
  if (B_ALONG) { *quad = b_raw(4u * jq + e, rq); } else { *quad = b_raw(4u * rq + e, jq); }
}

fn b_value(quad: QuadB) -> vec4f {
  return load_B(quad);
}
