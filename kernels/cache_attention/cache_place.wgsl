// Where new rows belong in the bound part of a cache.

struct Params {
  rows: u32,        // new rows of all sequences
  per_row: u32,     // threads, or workgroups, of a row
  per_sequence: u32,
  capacity: u32,    // rows of the cache for a sequence
  k_start: u32,     // first row of the bound part of the cache
  k_rows: u32,
}

// Row of the bound part for a row at a position of its sequence; k_rows or more where it is not in this part.
fn place(row: u32, position: u32) -> u32 {
  let here = row / p.per_sequence * p.capacity + position - p.k_start;  // wraps to a large number before this part
  return select(here, p.k_rows, position >= p.capacity);
}
