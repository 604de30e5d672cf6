// Eight rows of a transposed A at one quad of depth, in every lane: row e over the depth is column e of `low`, 4 + e of
// `high`.

#needs a_raw

struct SharedRows { low: mat4x4f, high: mat4x4f }

// A load gives four rows at one depth: lane l loads group l / 4 of rows at depth l % 4.
fn share_a(first_row: u32, lane: u32, rq: u32) -> SharedRows {
  let mine = load_A(a_raw(4u * rq + lane % 4u, first_row / 4u + lane / 4u));
  return SharedRows(
    transpose(mat4x4f(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u), subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u))),
    transpose(mat4x4f(subgroupBroadcast(mine, 4u), subgroupBroadcast(mine, 5u), subgroupBroadcast(mine, 6u), subgroupBroadcast(mine, 7u))),
  );
}
