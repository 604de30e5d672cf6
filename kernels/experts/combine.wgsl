// Sum of the rows of each token's experts, in the order in which they were taken: y[t] = sum_j x[places[t k + j]].
//
// Grid: one thread per quad of y, wrapped.

#needs PLACES_AT
#needs ADDS    // whether y is added to

struct Params {
  quads: u32,
  row_quads: u32,
  k: u32,
  pairs: u32,
  first: u32,    // token of y's first row
}

@group(0) @binding(0) var<storage, read> x: array<X>;               // (T k, C)
@group(0) @binding(1) var<storage, read_write> y: array<Y>;         // (T, C)
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  let first = PLACES_AT * p.pairs + (p.first + i / p.row_quads) * p.k;
  var sum = vec4f();
  for (var j = 0u; j < p.k; j++) {
    sum += load_X(x[table[first + j] * p.row_quads + i % p.row_quads]);
  }
  if (ADDS) { sum += load_Y(y[i]); }
  y[i] = store_Y(sum);
}
