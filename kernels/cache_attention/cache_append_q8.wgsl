// Puts the heads of new rows where their positions belong in a cache of 8 bits (codes_q8.wgsl); where the layer rotates,
// rotates keys on the way and queries in place. A head with a NaN or an infinity gets the scale NaN, so that it shows.
// New rows are bound for writing, since those of queries, keys and values may lie in one buffer.
//
// Grid: one workgroup per head of a new row, all keys and then all values; then those that rotate queries; wrapped.

#needs Params place key_quad load_word rotate_query workgroup_max store_C HEAD
#needs LANES
#needs D4        // quads of a head: LANES at most
#needs VALUES    // 1; 0 where k is all there is

@group(0) @binding(0) var<storage, read_write> k: array<Word>;        // (rows, kv_heads, 2 D4)
@group(0) @binding(2) var<storage, read> positions: array<u32>;       // (rows)
@group(0) @binding(3) var<storage, read_write> cached_k: array<C>;    // (k_rows, kv_heads, HEAD)
#for i in 0..VALUES
  @group(0) @binding(1) var<storage, read_write> v: array<Word>;
  @group(0) @binding(4) var<storage, read_write> cached_v: array<C>;
#end
@group(0) @binding(5) var<uniform> p: Params;

// Stands for what is not finite.
const HUGE = 3.4028234e38;
// Largest magnitude of a head that becomes zeros: its reciprocal overflows.
const TINY = 1e-36;

fn write_word(is_key: bool, at: u32, word: u32) {
  if (is_key) { cached_k[at] = word; }
  #for i in 0..VALUES
    if (!is_key) { cached_v[at] = word; }
  #end
}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let unit = group.y * groups.x + group.x;
  let heads = p.rows * p.per_row;
  // The same for the whole workgroup, so leaving here splits no barrier.
  if (unit >= heads + VALUES * heads) {
    rotate_query((unit - heads - VALUES * heads) * LANES + lane);
    return;
  }
  let is_key = unit < heads;
  let head = unit % heads;
  let row = head / p.per_row;
  let position = positions[row];
  let first = head * D4 + min(lane, D4 - 1u);
  var quad = vec4f();
  if (is_key) { quad = key_quad(first, position); }
  #for i in 0..VALUES
    if (!is_key) { quad = vec4f(load_word(v[2u * first]), load_word(v[2u * first + 1u])); }
  #end
  let is_finite = all((bitcast<vec4u>(quad) & vec4u(0x7f800000u)) != vec4u(0x7f800000u));
  let size = abs(quad);
  let largest = workgroup_max(lane, select(HUGE, max(max(size.x, size.y), max(size.z, size.w)), is_finite));
  let here = place(row, position);
  if (here >= p.k_rows) { return; }
  let at = (here * p.per_row + head % p.per_row) * HEAD;
  if (lane < D4) {
    write_word(is_key, at + lane, store_C(quad * select(0.0, 127.0 / largest, largest > TINY)));
  }
  if (lane == 0u) {
    write_word(is_key, at + D4, select(bitcast<u32>(largest / 127.0), 0x7fc00000u, largest >= HUGE));
  }
}
