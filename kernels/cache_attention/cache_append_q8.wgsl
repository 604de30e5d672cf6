// Puts the heads of new rows, keys or values, where their positions belong in a cache of 8 bits (codes_q8.wgsl).
// A head with a NaN or an infinity gets the scale NaN, so that it shows.
//
// Grid: one workgroup per head of a new row, wrapped.

#needs Params place workgroup_max store_C HEAD
#needs LANES
#needs D4    // quads of a head: LANES at most

@group(0) @binding(0) var<storage, read> x: array<X>;               // (rows, kv_heads, D4)
@group(0) @binding(1) var<storage, read> positions: array<u32>;     // (rows)
@group(0) @binding(2) var<storage, read_write> cached: array<C>;    // (k_rows, kv_heads, HEAD)
@group(0) @binding(3) var<uniform> p: Params;

// Stands for what is not finite.
const HUGE = 3.4028234e38;
// Largest magnitude of a head that becomes zeros: its reciprocal overflows.
const TINY = 1e-36;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let head = group.y * groups.x + group.x;
  let row = head / p.per_row;
  // The same for the whole workgroup, so leaving here splits no barrier.
  if (row >= p.rows) { return; }
  let quad = load_X(x[head * D4 + min(lane, D4 - 1u)]);
  let is_finite = all((bitcast<vec4u>(quad) & vec4u(0x7f800000u)) != vec4u(0x7f800000u));
  let size = abs(quad);
  let largest = workgroup_max(lane, select(HUGE, max(max(size.x, size.y), max(size.z, size.w)), is_finite));
  let here = place(row, positions[row]);
  if (here >= p.k_rows) { return; }
  let at = (here * p.per_row + head % p.per_row) * HEAD;
  if (lane < D4) {
    cached[at + lane] = store_C(quad * select(0.0, 127.0 / largest, largest > TINY));
  }
  if (lane == 0u) {
    cached[at + D4] = select(bitcast<u32>(largest / 127.0), 0x7fc00000u, largest >= HUGE);
  }
}
