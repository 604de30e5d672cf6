// Gradient of the queries, without barriers: lane l of a subgroup holds query row l of an 8-row block of one head,
// its dO and its dQ. Each step takes 8 keys as the forward kernel does, and recomputes their probabilities from the log of their sum.

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
// 1 to add to the dq of earlier keys.
override RESUME: u32;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let head = group.y;
  let kv_head = head / (p.heads / p.kv_heads);
  let table = select(0u, p.rows, 2u * head >= p.heads);
  let block = group.x * 8u;
  let block_end = min(block + 8u, p.q_rows);
  let row = min(block + lane, p.q_rows - 1u);
  let from_key = first[table + p.q_start + row];
  let to_key = p.q_start + row;
  let pair = row * p.heads + head;
  let log_sum = stats[pair].x;
  let mean = stats[pair].y;
#for i in 0..D4
  let q_$i = load_X(q[pair * D4 + $iu]) * p.scale;
  let g_$i = load_X(d_o[pair * D4 + $iu]);
  var dq_$i = vec4f();
#end
  let key_end = min(p.q_start + block_end, p.k_start + p.k_rows);
  for (var key = max(first[table + p.q_start + block], p.k_start); key < key_end; key += 8u) {
    let at = ((min(key + lane, key_end - 1u) - p.k_start) * p.kv_heads + kv_head) * D4;
#for t in 0..8
    var x_$t = 0.0;
    var d_$t = 0.0;
#end
#for i in 0..D4
    let k_$i = load_X(k[at + $iu]);
    let v_$i = load_X(v[at + $iu]);
#for t in 0..8
    x_$t += dot(q_$i, subgroupBroadcast(k_$i, $tu));
    d_$t += dot(g_$i, subgroupBroadcast(v_$i, $tu));
#end
#end
#for t in 0..8
    let seen_$t = key + $tu >= from_key && key + $tu <= to_key && key + $tu < key_end;
    d_$t = select(0.0, exp(x_$t - log_sum) * (d_$t - mean), seen_$t);
#end
#for i in 0..D4
#for t in 0..8
    dq_$i += d_$t * subgroupBroadcast(k_$i, $tu);
#end
#end
  }
  if (block + lane < p.q_rows) {
#for i in 0..D4
    dq_$i *= p.scale;
    if (RESUME == 1u) { dq_$i += load_X(dq[pair * D4 + $iu]); }
    dq[pair * D4 + $iu] = store_X(dq_$i);
#end
  }
}
