// NF4 codes to values through the subgroup: eight lanes hold the sixteen values, two each.

fn nf4_lane_values(lane: u32) -> vec2f {
  return nf4_value(vec4u(lane % 8u, lane % 8u + 8u, 0u, 0u)).xy;
}

// The values of the codes in the low four bits, before scaling. `values` is that of nf4_lane_values.
fn nf4_shuffle(values: vec2f, codes: vec4u) -> vec4f {
  return vec4f(
    nf4_shuffled(values, codes.x), nf4_shuffled(values, codes.y), nf4_shuffled(values, codes.z), nf4_shuffled(values, codes.w),
  );
}

fn nf4_shuffled(values: vec2f, code: u32) -> f32 {
  return select(subgroupShuffle(values.x, code & 7u), subgroupShuffle(values.y, code & 7u), (code & 8u) != 0u);
}
