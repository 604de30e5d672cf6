// Integers in workgroup memory, eight elements at a time.

#needs value_of LANES TILE

const PER = 8u;
var<workgroup> tile: array<vec4u, TILE / 8u>;

fn pair_of(element: u32, seed: u32) -> u32 {
  return pack2x16float(vec2f(value_of(element, seed), value_of(element + 1u, seed)));
}

fn fill(thread: u32, seed: u32) {
  for (var n = thread; n < TILE / 8u; n += LANES) {
    let first = 8u * n;
    tile[n] = vec4u(pair_of(first, seed), pair_of(first + 2u, seed), pair_of(first + 4u, seed), pair_of(first + 6u, seed));
  }
}
