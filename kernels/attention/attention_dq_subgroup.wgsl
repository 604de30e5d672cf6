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
  let block_end = min(block + 8u * R, p.q_rows);
  let key_end = min(p.q_start + block_end, p.k_start + p.k_rows);
#for r in 0..R
  let row_$r = min(block + $ru * 8u + lane, p.q_rows - 1u);
  let from_$r = first[table + p.q_start + row_$r];
  let to_$r = min(p.q_start + row_$r, key_end - 1u);
  let stats_$r = stats[row_$r * p.heads + head];
#for i in 0..D4
  var q_$r_$i = vec4f();
  var g_$r_$i = vec4f();
  var dq_$r_$i = vec4f();
#end
#end
  // One place that loads q and dO for all R rows: places that load are what takes long to compile.
  for (var start = block; start < block_end; start += 8u) {
    let at = (min(start + lane, p.q_rows - 1u) * p.heads + head) * D4;
#for i in 0..D4
    let q_$i = load_X(q[at + $iu]) * p.scale;
    let g_$i = load_X(d_o[at + $iu]);
#for r in 0..R
    q_$r_$i = select(q_$r_$i, q_$i, start == block + $ru * 8u);
    g_$r_$i = select(g_$r_$i, g_$i, start == block + $ru * 8u);
#end
#end
  }
  for (var key = max(first[table + p.q_start + block], p.k_start); key < key_end; key += 8u) {
    let at = ((min(key + lane, key_end - 1u) - p.k_start) * p.kv_heads + kv_head) * D4;
#for i in 0..D4
    let k_$i = load_X(k[at + $iu]);
    let v_$i = load_X(v[at + $iu]);
#end
    for (var t = 0u; t < min(8u, key_end - key); t++) {
#for r in 0..R
      var x_$r = vec4f();
      var d_$r = vec4f();
#end
#for i in 0..D4
      let key_$i = subgroupShuffle(k_$i, t);
      let value_$i = subgroupShuffle(v_$i, t);
#for r in 0..R
      x_$r += q_$r_$i * key_$i;
      d_$r += g_$r_$i * value_$i;
#end
#end
#for r in 0..R
      let seen_$r = key + t >= from_$r && key + t <= to_$r;
      let weight_$r = exp(dot(x_$r, vec4f(1.0)) - stats_$r.x) * (dot(d_$r, vec4f(1.0)) - stats_$r.y);
      let ds_$r = select(0.0, weight_$r, seen_$r);
#end
#for i in 0..D4
      let again_$i = subgroupShuffle(k_$i, t);
#for r in 0..R
      dq_$r_$i += ds_$r * again_$i;
#end
#end
    }
  }
  for (var row = block + lane; row < block_end; row += 8u) {
    let at = (row * p.heads + head) * D4;
#for i in 0..D4
    var dq_$i = dq_0_$i;
#for r in 1..R
    dq_$i = select(dq_$i, dq_$r_$i, row >= block + $ru * 8u);
#end
    dq_$i *= p.scale;
    if (RESUME == 1u) { dq_$i += load_X(dq[at + $iu]); }
    dq[at + $iu] = store_X(dq_$i);
#end
  }
}
