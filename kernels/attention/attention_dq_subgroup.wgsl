// Gradient of the queries, without barriers: lane l of a subgroup holds R query rows (l, l + 8, ..) of one head,
// their dO and dQ. Each step takes 8 keys as the forward kernel does, and recomputes their probabilities from the log of their sum.

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one table of first
  q_start: u32,  // first row of the bound part of q, d_o, stats and dq
  q_rows: u32,
  k_start: u32,  // first row of the bound part of k and v
  k_rows: u32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> q: array<X>;            // (q_rows, heads, D4)
@group(0) @binding(1) var<storage, read> k: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(2) var<storage, read> v: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(3) var<storage, read> d_o: array<X>;          // (q_rows, heads, D4)
@group(0) @binding(4) var<storage, read> stats: array<vec2f>;    // (q_rows, heads): lse, sum of dO * O
@group(0) @binding(5) var<storage, read> first: array<u32>;      // (2, rows)
@group(0) @binding(6) var<storage, read_write> dq: array<X>;     // (q_rows, heads, D4)
@group(0) @binding(7) var<uniform> p: Params;

// Quads of a head.
override D4: u32;
// Query rows of a lane.
override R: u32;
// 1 to add to the dq of earlier keys.
override RESUME: u32;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let head = group.y;
  let kv_head = head / (p.heads / p.kv_heads);
  let table = select(0u, p.rows, 2u * head >= p.heads);
  let block = group.x * 8u * R;
  let key_end = min(p.q_start + min(block + 8u * R, p.q_rows), p.k_start + p.k_rows);
#for r in 0..R
  let row_$r = min(block + $ru * 8u + lane, p.q_rows - 1u);
  let from_$r = first[table + p.q_start + row_$r];
  let to_$r = min(p.q_start + row_$r, key_end - 1u);
  let pair_$r = row_$r * p.heads + head;
  let stats_$r = stats[pair_$r];
#for i in 0..D4
  let q_$r_$i = load_X(q[pair_$r * D4 + $iu]) * p.scale;
  let g_$r_$i = load_X(d_o[pair_$r * D4 + $iu]);
  var dq_$r_$i = vec4f();
#end
#end
  for (var key = max(first[table + p.q_start + block], p.k_start); key < key_end; key += 8u) {
    let at = ((min(key + lane, key_end - 1u) - p.k_start) * p.kv_heads + kv_head) * D4;
#for r in 0..R
#for t in 0..8
    var x_$r_$t = 0.0;
    var d_$r_$t = 0.0;
#end
#end
#for i in 0..D4
    let k_$i = load_X(k[at + $iu]);
    let v_$i = load_X(v[at + $iu]);
#for t in 0..8
    let k_$i_$t = subgroupBroadcast(k_$i, $tu);
    let v_$i_$t = subgroupBroadcast(v_$i, $tu);
#for r in 0..R
    x_$r_$t += dot(q_$r_$i, k_$i_$t);
    d_$r_$t += dot(g_$r_$i, v_$i_$t);
#end
#end
#end
#for r in 0..R
#for t in 0..8
    let seen_$r_$t = key + $tu >= from_$r && key + $tu <= to_$r;
    d_$r_$t = select(0.0, exp(x_$r_$t - stats_$r.x) * (d_$r_$t - stats_$r.y), seen_$r_$t);
#end
#end
#for i in 0..D4
#for t in 0..8
    let again_$i_$t = subgroupBroadcast(k_$i, $tu);
#for r in 0..R
    dq_$r_$i += d_$r_$t * again_$i_$t;
#end
#end
#end
  }
#for r in 0..R
  if (block + $ru * 8u + lane < p.q_rows) {
#for i in 0..D4
    dq_$r_$i *= p.scale;
    if (RESUME == 1u) { dq_$r_$i += load_X(dq[pair_$r * D4 + $iu]); }
    dq[pair_$r * D4 + $iu] = store_X(dq_$r_$i);
#end
  }
#end
}
