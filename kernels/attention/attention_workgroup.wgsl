// Flash attention, forward, by tiles in workgroup memory (attention_tile.wgsl): a workgroup takes 32 query rows of one
// head and goes over its keys, 32 a step. Thread (r, c) holds the sums of quads c, c + 8, .. of rows r, r + 8, ...

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one table of first
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

// Quads of a row that a thread sums: D4 / 8, rounded up.
override SUMS: u32;
// 1 to go on from the o and lse of earlier keys.
override RESUME: u32;

// Scores of keys that a row may not see. Its own key comes last, so whatever weight these got by then fades to 0.
const HIDDEN = -1e30;

// (8 c, 8 r): element j is a figure of row r + 8j.
var<workgroup> row_figures: array<vec4f, 64>;

fn own_0(row: u32, head: u32, quad: u32) -> vec4f { return load_X(q[(row * p.heads + head) * D4 + quad]) * p.scale; }
fn other_0(row: u32, head: u32, quad: u32) -> vec4f { return load_X(k[(row * p.kv_heads + head) * D4 + quad]); }
fn other_1(row: u32, head: u32, quad: u32) -> vec4f { return load_X(v[(row * p.kv_heads + head) * D4 + quad]); }

fn largest(x: vec4f) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let r = thread / 8u;
  let c = thread % 8u;
  let head = group.y;
  let kv_head = head / (p.heads / p.kv_heads);
  let table = select(0u, p.rows, 2u * head >= p.heads);
  let queries = Side(group.x * 32u, min(group.x * 32u + 32u, p.q_rows), head);
  let key_end = min(p.q_start + queries.end, p.k_start + p.k_rows);
  var peak = vec4f(HIDDEN);
  var sum = vec4f();
#for j in 0..4
  let row_$j = min(queries.start + r + 8u * $ju, queries.end - 1u);
  let from_$j = vec4u(first[table + p.q_start + row_$j]);
  let to_$j = vec4u(min(p.q_start + row_$j, key_end - 1u));
  let at_$j = (row_$j * p.heads + head) * D4 + c;
#for i in 0..SUMS
  var o_$j_$i = vec4f();
#end
  if (RESUME == 1u) {
    peak[$j] = lse[row_$j * p.heads + head];
    sum[$j] = select(0.0, 1.0, c == 0u);
#for i in 0..SUMS
    if (c + 8u * $iu < D4) { o_$j_$i = load_X(o[at_$j + 8u * $iu]); }
#end
  }
#end
  for (var key = max(first[table + p.q_start + queries.start], p.k_start); key < key_end; key += 32u) {
    let keys = Side(key - p.k_start, key_end - p.k_start, kv_head);
    let x = scores_0(thread, queries, keys);
    let column = key + 4u * c + vec4u(0u, 1u, 2u, 3u);
#for j in 0..4
    let x_$j = select(vec4f(HIDDEN), x[$j], (column >= from_$j) & (column <= to_$j));
#end
    row_figures[c * 8u + r] = vec4f(largest(x_0), largest(x_1), largest(x_2), largest(x_3));
    workgroupBarrier();
    let was = peak;
    for (var n = r; n < 64u; n += 8u) { peak = max(peak, row_figures[n]); }
    let fade = exp(was - peak);
    sum *= fade;
#for j in 0..4
    let w_$j = exp(x_$j - peak[$j]);
    sum[$j] += dot(w_$j, vec4f(1.0));
    weights[c * 33u + r + 8u * $ju] = w_$j;
#for i in 0..SUMS
    o_$j_$i *= fade[$j];
#end
#end
    for (var start = 0u; start < 32u; start += STAGE) {
      stage_1(thread, keys, start);
      for (var n = 0u; n < STAGE; n += 4u) {
        let weights_at = (start + n) / 4u * 33u + r;
#for j in 0..4
        let p_$j = weights[weights_at + 8u * $ju];
#end
#for i in 0..SUMS
        let at_$i = n * D4 + c + 8u * $iu;
        let v_$i = mat4x4f(tile[at_$i], tile[at_$i + D4], tile[at_$i + 2u * D4], tile[at_$i + 3u * D4]);
#for j in 0..4
        o_$j_$i += v_$i * p_$j;
#end
#end
      }
    }
  }
  workgroupBarrier();
  row_figures[c * 8u + r] = sum;
  workgroupBarrier();
  sum = vec4f();
  for (var n = r; n < 64u; n += 8u) { sum += row_figures[n]; }
  // Nothing was summed if all keys that the row sees lie in other parts.
  sum = max(sum, vec4f(1e-30));
  let share = 1.0 / sum;
  let log_sum = peak + log(sum);
#for j in 0..4
  if (queries.start + r + 8u * $ju < p.q_rows) {
#for i in 0..SUMS
    if (c + 8u * $iu < D4) { o[at_$j + 8u * $iu] = store_X(o_$j_$i * share[$j]); }
#end
    if (c == 0u) { lse[row_$j * p.heads + head] = log_sum[$j]; }
  }
#end
}
