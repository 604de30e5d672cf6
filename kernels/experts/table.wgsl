// The table of a batch's routing: sections of u32, T tokens with k experts each.
//
//   tokens  (T k)      token of each sorted row: rows of an expert stand together, in the order of the tokens
//   pairs   (T k)      the same as a pair, token * k + place among its experts
//   places  (T k)      sorted row of each pair
//   experts (T k)      expert of each pair
//   counts  (E)        rows of each expert
//   starts  (E + 1)    sorted row at which each expert's begin
//   tiles   (tiles, 3) for tiles of TILE_ROWS rows of one expert each: the expert, its first row, the row behind its last

const PAIRS_AT = 1u;      // sections of T k that lie before
const PLACES_AT = 2u;
const EXPERTS_AT = 3u;
const COUNTS_AT = 4u;
