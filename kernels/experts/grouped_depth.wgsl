// A product over the rows of each expert, dW[e] = dy^T x: workgroups of one z sum over the table's rows of one expert.
//
// Grid: z = experts.

#needs p add_to_c table group_expert group_begin group_end
#needs A_BY_TOKEN B_BY_TOKEN    // whether an operand has a row for each token, not for each row of the table

fn product_begin(tile: vec3u) {
  group_expert = p.first + tile.z;
  group_begin = table[p.starts_at + group_expert];
  group_end = table[p.starts_at + group_expert + 1u];
}

fn depth_of(tile: vec3u) -> vec2u {
  let at = p.starts_at + p.first + tile.z;
  return vec2u(0u, (table[at + 1u] - table[at] + 3u) / 4u);
}

fn has_depth(depth: u32) -> bool {
  return group_begin + depth < group_end;
}

fn a_depth(depth: u32) -> u32 {
  let sorted = min(group_begin + depth, group_end - 1u);
  if (A_BY_TOKEN) { return table[sorted]; }
  return sorted;
}

fn b_row(depth: u32) -> u32 {
  let sorted = min(group_begin + depth, group_end - 1u);
  if (B_BY_TOKEN) { return table[sorted]; }
  return sorted;
}

fn store(part: u32, row: u32, jq: u32, sum: vec4f) {
  let output = group_expert * p.outputs + row;
  if (row >= p.outputs || jq >= p.cols || output < p.part_begin || output >= p.part_end) { return; }
  if (group_begin == group_end && p.beta == 1.0) { return; }
  add_to_c((output - p.part_begin) * p.c_stride + jq, sum, p.beta);
}
