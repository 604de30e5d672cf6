// Sixteen rows of a strided A at one quad of depth, in every lane: row 4 g + e is column e of `g`.

struct SharedRows { g0: mat4x4f, g1: mat4x4f, g2: mat4x4f, g3: mat4x4f }

// A load gives four rows at one depth: lane l loads group l % 4 at depths l / 4 and 2 + l / 4.
fn share_a(tile: u32, lane: u32, rq: u32) -> SharedRows {
  let low = a_quad(4u * rq + lane / 4u, 4u * tile + lane % 4u);
  let high = a_quad(4u * rq + 2u + lane / 4u, 4u * tile + lane % 4u);
  return SharedRows(
    transpose(mat4x4f(subgroupBroadcast(low, 0u), subgroupBroadcast(low, 4u), subgroupBroadcast(high, 0u), subgroupBroadcast(high, 4u))),
    transpose(mat4x4f(subgroupBroadcast(low, 1u), subgroupBroadcast(low, 5u), subgroupBroadcast(high, 1u), subgroupBroadcast(high, 5u))),
    transpose(mat4x4f(subgroupBroadcast(low, 2u), subgroupBroadcast(low, 6u), subgroupBroadcast(high, 2u), subgroupBroadcast(high, 6u))),
    transpose(mat4x4f(subgroupBroadcast(low, 3u), subgroupBroadcast(low, 7u), subgroupBroadcast(high, 3u), subgroupBroadcast(high, 7u))),
  );
}
