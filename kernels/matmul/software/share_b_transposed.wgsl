// Eight columns of a transposed B at one quad of depth, in every lane: column d of `left` holds the first four at depth d,
// of `right` the others.

#needs b_raw

struct SharedColumns { left: mat4x4f, right: mat4x4f }

// A load gives four columns at one depth: lane l loads group l / 4 of columns at depth l % 4.
fn share_b(first_quad: u32, lane: u32, rq: u32) -> SharedColumns {
  let mine = load_B(b_raw(4u * rq + lane % 4u, first_quad + lane / 4u));
  return SharedColumns(
    mat4x4f(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u), subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u)),
    mat4x4f(subgroupBroadcast(mine, 4u), subgroupBroadcast(mine, 5u), subgroupBroadcast(mine, 6u), subgroupBroadcast(mine, 7u)),
  );
}
