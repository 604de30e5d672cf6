// Integers in workgroup memory, an element at a time.

#needs value_of LANES TILE

const PER = 1u;
var<workgroup> tile: array<f16, TILE>;

fn fill(thread: u32, seed: u32) {
  for (var n = thread; n < TILE; n += LANES) { tile[n] = f16(value_of(n, seed)); }
}
