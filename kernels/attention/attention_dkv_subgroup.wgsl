// Gradients of the keys and values, without barriers: lane l of a subgroup holds key row l of an 8-row block of one
// kv head, its value and their gradients. It goes over the query heads of that kv head, 8 queries a step: lane t
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
// 1 to add to the dk and dv of earlier queries.
override RESUME: u32;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let kv_head = group.y;
  let sharers = p.heads / p.kv_heads;
  let block = group.x * 8u;
  let block_end = min(block + 8u, p.k_rows);
  let row = min(block + lane, p.k_rows - 1u);
  let from_query = p.k_start + row;
  let mine = (row * p.kv_heads + kv_head) * D4;
#for i in 0..D4
  let k_$i = load_X(k[mine + $iu]) * p.scale;
  let v_$i = load_X(v[mine + $iu]);
  var dk_$i = vec4f();
  var dv_$i = vec4f();
#end
  for (var head = kv_head * sharers; head < (kv_head + 1u) * sharers; head++) {
    let table = select(0u, p.rows, 2u * head >= p.heads);
    let to_query = last[table + p.k_start + row];
    let query_end = min(last[table + p.k_start + block_end - 1u] + 1u, p.q_start + p.q_rows);
    for (var query = max(p.k_start + block, p.q_start); query < query_end; query += 8u) {
      let pair = (min(query + lane, query_end - 1u) - p.q_start) * p.heads + head;
      let log_sum = stats[pair].x;
      let mean = stats[pair].y;
#for t in 0..8
      var x_$t = 0.0;
      var d_$t = 0.0;
#end
#for i in 0..D4
      let q_$i = load_X(q[pair * D4 + $iu]);
      let g_$i = load_X(d_o[pair * D4 + $iu]);
#for t in 0..8
      x_$t += dot(k_$i, subgroupBroadcast(q_$i, $tu));
      d_$t += dot(v_$i, subgroupBroadcast(g_$i, $tu));
#end
#end
#for t in 0..8
      let seen_$t = query + $tu >= from_query && query + $tu <= to_query && query + $tu < query_end;
      x_$t = select(0.0, exp(x_$t - subgroupBroadcast(log_sum, $tu)), seen_$t);
      d_$t = x_$t * (d_$t - subgroupBroadcast(mean, $tu));
#end
#for i in 0..D4
#for t in 0..8
      dk_$i += d_$t * subgroupBroadcast(q_$i, $tu);
      dv_$i += x_$t * subgroupBroadcast(g_$i, $tu);
#end
#end
    }
  }
  if (block + lane < p.k_rows) {
#for i in 0..D4
    dk_$i *= p.scale;
    if (RESUME == 1u) {
      dk_$i += load_X(dk[mine + $iu]);
      dv_$i += load_X(dv[mine + $iu]);
    }
    dk[mine + $iu] = store_X(dk_$i);
    dv[mine + $iu] = store_X(dv_$i);
#end
  }
}
