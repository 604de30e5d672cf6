// NF4 codes to values through the subgroup: eight lanes hold the sixteen values in registers, two each.

#needs nf4_value

var<private> nf4_held: vec2f;

// To be called by every lane, first.
fn nf4_begin(lane: u32) {
  nf4_held = nf4_value(vec4u(lane % 8u, lane % 8u + 8u, 0u, 0u)).xy;
}

// The values of the codes in the low four bits, before scaling.
fn nf4_lookup(codes: vec4u) -> vec4f {
  return vec4f(nf4_shuffle(codes.x), nf4_shuffle(codes.y), nf4_shuffle(codes.z), nf4_shuffle(codes.w));
}

fn nf4_shuffle(code: u32) -> f32 {
  return select(subgroupShuffle(nf4_held.x, code & 7u), subgroupShuffle(nf4_held.y, code & 7u), (code & 8u) != 0u);
}
