// Gradient of the queries by tiles in workgroup memory (attention_tile.wgsl): a workgroup takes 32 query rows of one
// head and goes over its keys, 32 a step. Thread (r, c) holds the sums of quads c, c + 8, .. of rows r, r + 8, ...

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
@group(0) @binding(0) var<storage, read> q: array<X>;          // (q_rows, heads, D4)
@group(0) @binding(1) var<storage, read> k: array<X>;          // (k_rows, kv_heads, D4)
@group(0) @binding(2) var<storage, read> v: array<X>;          // (k_rows, kv_heads, D4)
@group(0) @binding(3) var<storage, read> d_o: array<X>;        // (q_rows, heads, D4)
@group(0) @binding(4) var<storage, read> stats: array<vec2f>;  // (q_rows, heads): lse, sum of dO * O
@group(0) @binding(5) var<storage, read> first: array<u32>;    // (2, rows)
@group(0) @binding(6) var<storage, read_write> dq: array<X>;   // (q_rows, heads, D4)
@group(0) @binding(7) var<uniform> p: Params;

// Quads of a row that a thread sums: D4 / 8, rounded up.
override SUMS: u32;
// 1 to add to the dq of earlier keys.
override RESUME: u32;

fn own_0(row: u32, head: u32, quad: u32) -> vec4f { return load_X(q[(row * p.heads + head) * D4 + quad]) * p.scale; }
fn own_1(row: u32, head: u32, quad: u32) -> vec4f { return load_X(d_o[(row * p.heads + head) * D4 + quad]); }
fn other_0(row: u32, head: u32, quad: u32) -> vec4f { return load_X(k[(row * p.kv_heads + head) * D4 + quad]); }
fn other_1(row: u32, head: u32, quad: u32) -> vec4f { return load_X(v[(row * p.kv_heads + head) * D4 + quad]); }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let r = thread / 8u;
  let c = thread % 8u;
  let head = group.y;
  let kv_head = head / (p.heads / p.kv_heads);
  let table = select(0u, p.rows, 2u * head >= p.heads);
  let queries = Side(group.x * 32u, min(group.x * 32u + 32u, p.q_rows), head);
  let key_end = min(p.q_start + queries.end, p.k_start + p.k_rows);
#for j in 0..4
  let row_$j = min(queries.start + r + 8u * $ju, queries.end - 1u);
  let from_$j = vec4u(first[table + p.q_start + row_$j]);
  let to_$j = vec4u(min(p.q_start + row_$j, key_end - 1u));
  let stats_$j = stats[row_$j * p.heads + head];
#for i in 0..SUMS
  var dq_$j_$i = vec4f();
#end
#end
  for (var key = max(first[table + p.q_start + queries.start], p.k_start); key < key_end; key += 32u) {
    let keys = Side(key - p.k_start, key_end - p.k_start, kv_head);
    let x = scores_0(thread, queries, keys);
    let d = scores_1(thread, queries, keys);
    let column = key + 4u * c + vec4u(0u, 1u, 2u, 3u);
#for j in 0..4
    let seen_$j = (column >= from_$j) & (column <= to_$j);
    weights[c * 33u + r + 8u * $ju] =
      select(vec4f(), exp(x[$j] - stats_$j.x) * (d[$j] - stats_$j.y), seen_$j);
#end
    for (var start = 0u; start < 32u; start += STAGE) {
      stage_0(thread, keys, start);
      for (var n = 0u; n < STAGE; n += 4u) {
        let weights_at = (start + n) / 4u * 33u + r;
#for j in 0..4
        let w_$j = weights[weights_at + 8u * $ju];
#end
#for i in 0..SUMS
        let at_$i = n * D4 + c + 8u * $iu;
        let k_$i = mat4x4f(tile[at_$i], tile[at_$i + D4], tile[at_$i + 2u * D4], tile[at_$i + 3u * D4]);
#for j in 0..4
        dq_$j_$i += k_$i * w_$j;
#end
#end
      }
    }
  }
#for j in 0..4
#for i in 0..SUMS
  if (queries.start + r + 8u * $ju < p.q_rows && c + 8u * $iu < D4) {
    let at = (row_$j * p.heads + head) * D4 + c + 8u * $iu;
    dq_$j_$i *= p.scale;
    if (RESUME == 1u) { dq_$j_$i += load_X(dq[at]); }
    dq[at] = store_X(dq_$j_$i);
  }
#end
#end
}
