// Scores by tiles in workgroup memory, for devices where barriers are cheap. A workgroup of 64 threads takes 32 rows of
// its own (queries, or keys) and goes over 32 other rows a step. Thread (r, c) of 8 x 8 holds the scores of own rows r,
// r + 8, r + 16, r + 24 and other rows 4c to 4c + 3. The kernel defines own_0, other_0, .. : a quad of a row.

// Quads of a head.
override D4: u32;
// Quads of a head in the tile at a time: divides D4, 8 at most.
override CHUNK: u32;
// Other rows in the tile at a time when they are summed: divides 32, and STAGE * D4 quads fit in the tile.
override STAGE: u32;
override PRODUCTS: u32;
override STAGED: u32;

// Rows of one head, counted in their binding.
struct Side { start: u32, end: u32, head: u32 }

// 33 instead of 32 rows, so that threads that write different quads of a row meet different banks.
var<workgroup> tile: array<vec4f, 528>;
// (8, 33): weights of the other rows 4c to 4c + 3 for an own row.
var<workgroup> weights: array<vec4f, 264>;

#for m in 0..PRODUCTS
// Dot products of the 32 x 32 rows: column j for own row r + 8j, element e for other row 4c + e.
fn scores_$m(thread: u32, own: Side, other: Side) -> mat4x4f {
#for j in 0..4
  var x_$j = vec4f();
#end
  for (var chunk = 0u; chunk < D4; chunk += CHUNK) {
    workgroupBarrier();
    for (var n = thread; n < 32u * CHUNK; n += 64u) {
      let row = n / CHUNK;
      let quad = n % CHUNK;
      tile[quad * 33u + row] = own_$m(min(own.start + row, own.end - 1u), own.head, chunk + quad);
      // Rows 4c + e lie at c + 8e, so that neighbours c read neighbouring quads.
      tile[264u + quad * 33u + row % 4u * 8u + row / 4u] =
        other_$m(min(other.start + row, other.end - 1u), other.head, chunk + quad);
    }
    workgroupBarrier();
    for (var quad = 0u; quad < CHUNK; quad++) {
      let own_at = quad * 33u + thread / 8u;
      let other_at = 264u + quad * 33u + thread % 8u;
      let others = mat4x4f(tile[other_at], tile[other_at + 8u], tile[other_at + 16u], tile[other_at + 24u]);
#for j in 0..4
      x_$j += tile[own_at + 8u * $ju] * others;
#end
    }
  }
  return mat4x4f(x_0, x_1, x_2, x_3);
}
#end

#for m in 0..STAGED
// Brings STAGE other rows to the tile: (STAGE, D4).
fn stage_$m(thread: u32, other: Side, start: u32) {
  workgroupBarrier();
  for (var n = thread; n < STAGE * D4; n += 64u) {
    tile[n] = other_$m(min(other.start + start + n / D4, other.end - 1u), other.head, n % D4);
  }
  workgroupBarrier();
}
#end
