// Sixteen rows of A at one quad of depth, in every lane: row 4 g + e is column e of `g`.

struct SharedRows { g0: mat4x4f, g1: mat4x4f, g2: mat4x4f, g3: mat4x4f }

// Lane l loads rows l and 8 + l of the tile.
fn share_a(tile: u32, lane: u32, rq: u32) -> SharedRows {
  let low = a_quad(16u * tile + lane, rq);
  let high = a_quad(16u * tile + 8u + lane, rq);
  return SharedRows(
    mat4x4f(subgroupBroadcast(low, 0u), subgroupBroadcast(low, 1u), subgroupBroadcast(low, 2u), subgroupBroadcast(low, 3u)),
    mat4x4f(subgroupBroadcast(low, 4u), subgroupBroadcast(low, 5u), subgroupBroadcast(low, 6u), subgroupBroadcast(low, 7u)),
    mat4x4f(subgroupBroadcast(high, 0u), subgroupBroadcast(high, 1u), subgroupBroadcast(high, 2u), subgroupBroadcast(high, 3u)),
    mat4x4f(subgroupBroadcast(high, 4u), subgroupBroadcast(high, 5u), subgroupBroadcast(high, 6u), subgroupBroadcast(high, 7u)),
  );
}
