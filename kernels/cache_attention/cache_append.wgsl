// Puts the keys and values of new rows where their positions belong in the cache, in the cache's own format; where the
// layer rotates, rotates keys on the way and queries in place.
// New rows are bound for writing, since those of queries, keys and values may lie in one buffer.
//
// Grid: one thread per quad of a new row's keys and values, then those that rotate queries; wrapped.

#needs Params place key_quad load_word rotate_query

@group(0) @binding(0) var<storage, read_write> k: array<Word>;        // (rows, 2 quads)
@group(0) @binding(1) var<storage, read_write> v: array<Word>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;       // (rows)
@group(0) @binding(3) var<storage, read_write> cached_k: array<C>;    // (k_rows, quads)
@group(0) @binding(4) var<storage, read_write> cached_v: array<C>;
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  let quads = p.rows * p.per_row;
  if (i >= quads) {
    rotate_query(i - quads);
    return;
  }
  let row = i / p.per_row;
  let position = positions[row];
  let here = place(row, position);
  if (here >= p.k_rows) { return; }
  let at = here * p.per_row + i % p.per_row;
  cached_k[at] = store_C(key_quad(i, position));
  cached_v[at] = store_C(vec4f(load_word(v[2u * i]), load_word(v[2u * i + 1u])));
}
