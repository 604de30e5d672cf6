// Eight rows of A at one quad of depth, in every lane: row e over the depth is column e of `low`, 4 + e of `high`.

#needs a_raw

struct SharedRows { low: mat4x4f, high: mat4x4f }

// Lane l loads row l.
fn share_a(first_row: u32, lane: u32, rq: u32) -> SharedRows {
  let mine = load_A(a_raw(first_row + lane, rq));
  return SharedRows(
    mat4x4f(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u), subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u)),
    mat4x4f(subgroupBroadcast(mine, 4u), subgroupBroadcast(mine, 5u), subgroupBroadcast(mine, 6u), subgroupBroadcast(mine, 7u)),
  );
}
