// Sorts the pairs by expert, those of one expert by token: the table's tokens, pairs, places, starts and tiles.
//
// Grid: one workgroup of 64 per expert. A lane looks after a run of pairs; how many of an expert lie before it is a sum
// over lanes, so the order never changes.

#needs PAIRS_AT PLACES_AT EXPERTS_AT COUNTS_AT
#needs TILE_ROWS

struct Params { pairs: u32, k: u32, experts: u32, tiles: u32 }

@group(0) @binding(0) var<storage, read_write> table: array<u32>;
@group(0) @binding(1) var<uniform> p: Params;

var<workgroup> counts: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let expert = group.x;
  let counts_at = COUNTS_AT * p.pairs;
  let starts_at = counts_at + p.experts;
  let tiles_at = starts_at + p.experts + 1u;
  var start = 0u;
  var tiles = 0u;
  for (var e = 0u; e < expert; e++) {
    start += table[counts_at + e];
    tiles += (table[counts_at + e] + TILE_ROWS - 1u) / TILE_ROWS;
  }
  let count = table[counts_at + expert];
  let end_tile = tiles + (count + TILE_ROWS - 1u) / TILE_ROWS;
  for (var t = tiles + lane; t < end_tile; t += 64u) {
    let first = start + (t - tiles) * TILE_ROWS;
    table[tiles_at + 3u * t] = expert;
    table[tiles_at + 3u * t + 1u] = first;
    table[tiles_at + 3u * t + 2u] = min(first + TILE_ROWS, start + count);
  }
  if (expert + 1u == p.experts) {
    // Tiles that this routing does not need have no rows.
    for (var t = 3u * end_tile + lane; t < 3u * p.tiles; t += 64u) {
      table[tiles_at + t] = 0u;
    }
  }
  if (lane == 0u) {
    table[starts_at + expert] = start;
    if (expert + 1u == p.experts) {
      table[starts_at + p.experts] = start + count;
    }
  }

  let run = (p.pairs + 63u) / 64u;
  let first_pair = lane * run;
  let end_pair = min(first_pair + run, p.pairs);
  var own = 0u;
  for (var pair = first_pair; pair < end_pair; pair++) {
    own += u32(table[EXPERTS_AT * p.pairs + pair] == expert);
  }
  counts[lane] = own;
  workgroupBarrier();
  var place = start;
  for (var i = 0u; i < lane; i++) {
    place += counts[i];
  }
  for (var pair = first_pair; pair < end_pair; pair++) {
    if (table[EXPERTS_AT * p.pairs + pair] == expert) {
      table[place] = pair / p.k;
      table[PAIRS_AT * p.pairs + place] = pair;
      table[PLACES_AT * p.pairs + pair] = place;
      place++;
    }
  }
}
