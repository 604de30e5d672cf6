// Where new rows belong in the bound part of a cache.

struct Params {
  rows: u32,          // bound new rows
  first_row: u32,     // number of the first of them among those of all sequences
  per_row: u32,       // threads, or workgroups, of a row of keys
  per_sequence: u32,
  capacity: u32,      // rows of the cache for a sequence
  k_start: u32,       // first row of the bound part of the cache
  k_rows: u32,
  heads: u32,         // of queries to rotate; 0 where they are not
  half_words: u32,    // R / 4, for the R elements of a head that rotate
}

// Row of the bound part for a row at a position of its sequence; k_rows or more where it is not in this part.
fn place(row: u32, position: u32) -> u32 {
  // Wraps to a large number before this part.
  let here = (p.first_row + row) / p.per_sequence * p.capacity + position - p.k_start;
  return select(here, p.k_rows, position >= p.capacity);
}
