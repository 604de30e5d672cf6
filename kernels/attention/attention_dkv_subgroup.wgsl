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
#for i in 0..D4
  var k_$r_$i = vec4f();
  var v_$r_$i = vec4f();
  var dk_$r_$i = vec4f();
  var dv_$r_$i = vec4f();
#end
#end
  // One place that loads k and v for all R rows: places that load are what takes long to compile.
  for (var start = block; start < block_end; start += 8u) {
    let at = (min(start + lane, p.k_rows - 1u) * p.kv_heads + kv_head) * D4;
#for i in 0..D4
    let k_$i = load_X(k[at + $iu]) * p.scale;
    let v_$i = load_X(v[at + $iu]);
#for r in 0..R
    k_$r_$i = select(k_$r_$i, k_$i, start == block + $ru * 8u);
    v_$r_$i = select(v_$r_$i, v_$i, start == block + $ru * 8u);
#end
#end
  }
  for (var head = kv_head * sharers; head < (kv_head + 1u) * sharers; head++) {
    let table = select(0u, p.rows, 2u * head >= p.heads) + p.k_start;
    let query_end = min(last[table + block_end - 1u] + 1u, p.q_start + p.q_rows);
#for r in 0..R
    let from_$r = p.k_start + row_$r;
    let to_$r = min(last[table + row_$r], query_end - 1u);
#end
    for (var query = max(p.k_start + block, p.q_start); query < query_end; query += 8u) {
      let pair = (min(query + lane, query_end - 1u) - p.q_start) * p.heads + head;
      let stats_lane = stats[pair];
#for i in 0..D4
      let q_$i = load_X(q[pair * D4 + $iu]);
      let g_$i = load_X(d_o[pair * D4 + $iu]);
#end
      for (var t = 0u; t < min(8u, query_end - query); t++) {
        let stats_query = subgroupShuffle(stats_lane, t);
#for r in 0..R
        var x_$r = vec4f();
        var d_$r = vec4f();
#end
#for i in 0..D4
        let query_$i = subgroupShuffle(q_$i, t);
        let slope_$i = subgroupShuffle(g_$i, t);
#for r in 0..R
        x_$r += k_$r_$i * query_$i;
        d_$r += v_$r_$i * slope_$i;
#end
#end
#for r in 0..R
        let seen_$r = query + t >= from_$r && query + t <= to_$r;
        let p_$r = select(0.0, exp(dot(x_$r, vec4f(1.0)) - stats_query.x), seen_$r);
        let ds_$r = p_$r * (dot(d_$r, vec4f(1.0)) - stats_query.y);
#end
#for i in 0..D4
        let query_again_$i = subgroupShuffle(q_$i, t);
        let slope_again_$i = subgroupShuffle(g_$i, t);
#for r in 0..R
        dk_$r_$i += ds_$r * query_again_$i;
        dv_$r_$i += p_$r * slope_again_$i;
#end
#end
      }
    }
  }
  for (var row = block + lane; row < block_end; row += 8u) {
    let at = (row * p.kv_heads + kv_head) * D4;
#for i in 0..D4
    var dk_$i = dk_0_$i;
    var dv_$i = dv_0_$i;
#for r in 1..R
    dk_$i = select(dk_$i, dk_$r_$i, row >= block + $ru * 8u);
    dv_$i = select(dv_$i, dv_$r_$i, row >= block + $ru * 8u);
#end
    dk_$i *= p.scale;
    if (RESUME == 1u) {
      dk_$i += load_X(dk[at + $iu]);
      dv_$i += load_X(dv[at + $iu]);
    }
    dk[at + $iu] = store_X(dk_$i);
    dv[at + $iu] = store_X(dv_$i);
#end
  }
}
