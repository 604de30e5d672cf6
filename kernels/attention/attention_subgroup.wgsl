// Flash attention, forward, without barriers: a workgroup is 8 lanes of one subgroup, lane l holds R query rows (l,
// l + 8, ..) of one head in registers. Each step takes 8 keys: lane t loads key row t and value row t once, and all
// lanes get them by broadcast.

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one set of first
  q_start: u32,  // first row of the bound part of q, o and lse
  q_rows: u32,
  k_start: u32,  // first row of the bound part of k and v
  k_rows: u32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> q: array<X>;            // (q_rows, heads, D4)
@group(0) @binding(1) var<storage, read> k: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(2) var<storage, read> v: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(3) var<storage, read> first: array<u32>;      // (2, rows)
@group(0) @binding(4) var<storage, read_write> o: array<X>;      // (q_rows, heads, D4)
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;  // (q_rows, heads)
@group(0) @binding(6) var<uniform> p: Params;

// Quads of a head.
override D4: u32;
// Query rows of a lane.
override R: u32;
// 1 to go on from the o and lse of earlier keys.
override RESUME: u32;

// Scores of keys that a row may not see. Its own key comes last, so whatever weight these got by then fades to 0.
const HIDDEN = -1e30;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let head = group.y;
  let kv_head = head / (p.heads / p.kv_heads);
  let table = select(0u, p.rows, 2u * head >= p.heads);
  let block = group.x * 8u * R;
  let block_end = min(block + 8u * R, p.q_rows);
  let key_end = min(p.q_start + block_end, p.k_start + p.k_rows);
#for r in 0..R
  let row_$r = min(block + $ru * 8u + lane, p.q_rows - 1u);
  let from_$r = first[table + p.q_start + row_$r];
  let to_$r = min(p.q_start + row_$r, key_end - 1u);
  var max_$r = HIDDEN;
  var sum_$r = 0.0;
#for i in 0..D4
  var q_$r_$i = vec4f();
  var o_$r_$i = vec4f();
#end
#end
  // One place that loads q for all R rows: places that load are what takes long to compile.
  for (var start = block; start < block_end; start += 8u) {
    let pair = min(start + lane, p.q_rows - 1u) * p.heads + head;
#for i in 0..D4
    let q_$i = load_X(q[pair * D4 + $iu]) * p.scale;
#for r in 0..R
    q_$r_$i = select(q_$r_$i, q_$i, start == block + $ru * 8u);
#end
#end
    if (RESUME == 1u) {
      let before = lse[pair];
#for r in 0..R
      max_$r = select(max_$r, before, start == block + $ru * 8u);
      sum_$r = 1.0;
#end
#for i in 0..D4
      let o_$i = load_X(o[pair * D4 + $iu]);
#for r in 0..R
      o_$r_$i = select(o_$r_$i, o_$i, start == block + $ru * 8u);
#end
#end
    }
  }
  for (var key = max(first[table + p.q_start + block], p.k_start); key < key_end; key += 8u) {
    let at = ((min(key + lane, key_end - 1u) - p.k_start) * p.kv_heads + kv_head) * D4;
#for r in 0..R
#for t in 0..8
    var x_$r_$t = 0.0;
#end
#end
#for i in 0..D4
    let k_$i = load_X(k[at + $iu]);
#for t in 0..8
    let k_$i_$t = subgroupBroadcast(k_$i, $tu);
#for r in 0..R
    x_$r_$t += dot(q_$r_$i, k_$i_$t);
#end
#end
#end
#for r in 0..R
    let was_$r = max_$r;
#for t in 0..8
    x_$r_$t = select(HIDDEN, x_$r_$t, key + $tu >= from_$r && key + $tu <= to_$r);
    max_$r = max(max_$r, x_$r_$t);
#end
    let fade_$r = exp(was_$r - max_$r);
    sum_$r *= fade_$r;
#for t in 0..8
    x_$r_$t = exp(x_$r_$t - max_$r);
    sum_$r += x_$r_$t;
#end
#end
#for i in 0..D4
    let v_$i = load_X(v[at + $iu]);
#for r in 0..R
    o_$r_$i *= fade_$r;
#end
#for t in 0..8
    let v_$i_$t = subgroupBroadcast(v_$i, $tu);
#for r in 0..R
    o_$r_$i += x_$r_$t * v_$i_$t;
#end
#end
#end
  }
#for r in 0..R
  // Nothing was summed if all keys that the row sees lie in other parts.
  let share_$r = 1.0 / max(sum_$r, 1e-30);
  let log_sum_$r = max_$r + log(max(sum_$r, 1e-30));
#end
  for (var row = block + lane; row < block_end; row += 8u) {
    let pair = row * p.heads + head;
    var log_sum = log_sum_0;
#for r in 1..R
    log_sum = select(log_sum, log_sum_$r, row >= block + $ru * 8u);
#end
    lse[pair] = log_sum;
#for i in 0..D4
    var o_$i = o_0_$i * share_0;
#for r in 1..R
    o_$i = select(o_$i, o_$r_$i * share_$r, row >= block + $ru * 8u);
#end
    o[pair * D4 + $iu] = store_X(o_$i);
#end
  }
}
