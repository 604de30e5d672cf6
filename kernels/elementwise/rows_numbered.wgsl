// Number of a quad in its stream, where each row has a number of its own.

#needs p

@group(0) @binding(3) var<storage, read> numbers: array<u32>;    // of rows, from p.numbers_at on

fn number_of(i: u32) -> u32 {
  return numbers[p.numbers_at + i / p.row_quads] * p.row_quads + i % p.row_quads;
}
