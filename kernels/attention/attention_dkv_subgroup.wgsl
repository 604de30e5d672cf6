// Gradients of the keys and values, without barriers: lane l of a subgroup holds R key rows (l, l + 8, ..) of one kv
// head, their values and the gradients of both. It goes over the query heads of that kv head, 8 queries a step: lane t
// loads query row t and its dO, and all lanes get them by broadcast. Always in the same order, so always the same sum.

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one table of first and of last
  q_start: u32,  // first row of the bound part of q, d_o and stats
  q_rows: u32,
  k_start: u32,  // first row of the bound part of k, v, dk and dv
  k_rows: u32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> q: array<X>;            // (q_rows, heads, D4)
@group(0) @binding(1) var<storage, read> k: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(2) var<storage, read> v: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(3) var<storage, read> d_o: array<X>;          // (q_rows, heads, D4)
@group(0) @binding(4) var<storage, read> stats: array<vec2f>;    // (q_rows, heads): lse, sum of dO * O
@group(0) @binding(5) var<storage, read> last: array<u32>;       // (2, rows)
@group(0) @binding(6) var<storage, read_write> dk: array<X>;     // (k_rows, kv_heads, D4)
@group(0) @binding(7) var<storage, read_write> dv: array<X>;     // (k_rows, kv_heads, D4)
@group(0) @binding(8) var<uniform> p: Params;

// Quads of a head.
override D4: u32;
// Key rows of a lane.
override R: u32;
// 1 to add to the dk and dv of earlier queries.
override RESUME: u32;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let kv_head = group.y;
  let sharers = p.heads / p.kv_heads;
  let block = group.x * 8u * R;
  let block_end = min(block + 8u * R, p.k_rows);
#for r in 0..R
  let row_$r = min(block + $ru * 8u + lane, p.k_rows - 1u);
  let at_$r = (row_$r * p.kv_heads + kv_head) * D4;
#for i in 0..D4
  let k_$r_$i = load_X(k[at_$r + $iu]) * p.scale;
  let v_$r_$i = load_X(v[at_$r + $iu]);
  var dk_$r_$i = vec4f();
  var dv_$r_$i = vec4f();
#end
#end
  for (var head = kv_head * sharers; head < (kv_head + 1u) * sharers; head++) {
    let table = select(0u, p.rows, 2u * head >= p.heads) + p.k_start;
    let query_end = min(last[table + block_end - 1u] + 1u, p.q_start + p.q_rows);
#for r in 0..R
    let from_$r = p.k_start + row_$r;
    let to_$r = min(last[table + row_$r], query_end - 1u);
#end
    for (var query = max(p.k_start + block, p.q_start); query < query_end; query += 8u) {
      let pair = (min(query + lane, query_end - 1u) - p.q_start) * p.heads + head;
      let stats_mine = stats[pair];
#for r in 0..R
#for t in 0..8
      var x_$r_$t = 0.0;
      var d_$r_$t = 0.0;
#end
#end
#for i in 0..D4
      let q_$i = load_X(q[pair * D4 + $iu]);
      let g_$i = load_X(d_o[pair * D4 + $iu]);
#for t in 0..8
      let q_$i_$t = subgroupBroadcast(q_$i, $tu);
      let g_$i_$t = subgroupBroadcast(g_$i, $tu);
#for r in 0..R
      x_$r_$t += dot(k_$r_$i, q_$i_$t);
      d_$r_$t += dot(v_$r_$i, g_$i_$t);
#end
#end
#end
#for t in 0..8
      let stats_$t = subgroupBroadcast(stats_mine, $tu);
#for r in 0..R
      let seen_$r_$t = query + $tu >= from_$r && query + $tu <= to_$r;
      x_$r_$t = select(0.0, exp(x_$r_$t - stats_$t.x), seen_$r_$t);
      d_$r_$t = x_$r_$t * (d_$r_$t - stats_$t.y);
#end
#end
#for i in 0..D4
#for t in 0..8
      let q_again_$i_$t = subgroupBroadcast(q_$i, $tu);
      let g_again_$i_$t = subgroupBroadcast(g_$i, $tu);
#for r in 0..R
      dk_$r_$i += d_$r_$t * q_again_$i_$t;
      dv_$r_$i += x_$r_$t * g_again_$i_$t;
#end
#end
#end
    }
  }
#for r in 0..R
  if (block + $ru * 8u + lane < p.k_rows) {
#for i in 0..D4
    dk_$r_$i *= p.scale;
    if (RESUME == 1u) {
      dk_$r_$i += load_X(dk[at_$r + $iu]);
      dv_$r_$i += load_X(dv[at_$r + $iu]);
    }
    dk[at_$r + $iu] = store_X(dk_$r_$i);
    dv[at_$r + $iu] = store_X(dv_$r_$i);
#end
  }
#end
}
