// Puts the keys and values of new rows where their positions belong in the cache, in the cache's own format.
//
// Grid: one thread per quad of a new row, wrapped.

#needs Params place

@group(0) @binding(0) var<storage, read> k: array<X>;                 // (rows, quads)
@group(0) @binding(1) var<storage, read> v: array<X>;
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
  let row = i / p.per_row;
  if (row >= p.rows) { return; }
  let here = place(row, positions[row]);
  if (here >= p.k_rows) { return; }
  let at = here * p.per_row + i % p.per_row;
  cached_k[at] = store_C(load_X(k[i]));
  cached_v[at] = store_C(load_X(v[i]));
}
