// Flash attention, forward, by tiles in workgroup memory (attention_tile.wgsl): a workgroup takes ROWS query rows of one
// head and goes over its keys, COLUMNS a step. Thread (r, c) holds the sums of quads c, c + THREAD_COLS, .. of its rows.

#needs Side scores_0 load_stage_1 stage capped
#needs D4 THREADS THREAD_COLS ROWS ROW_QUADS THREAD_ROWS COLUMNS STAGE
#needs SUMS      // quads of a row that a thread sums: D4 / THREAD_COLS, rounded up
#needs RESUME    // whether to go on from the o and lse of earlier keys

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one table of first
  q_start: u32,  // first row of the bound part of q, o and lse
  q_rows: u32,
  k_start: u32,  // first row of the bound part of k and v
  k_rows: u32,
  scale: f32,
  cap: f32,      // soft cap of the scores
}
@group(0) @binding(0) var<storage, read> q: array<X>;            // (q_rows, heads, D4)
@group(0) @binding(1) var<storage, read> k: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(2) var<storage, read> v: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(3) var<storage, read> first: array<u32>;      // (2, rows)
@group(0) @binding(4) var<storage, read_write> o: array<X>;      // (q_rows, heads, D4)
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;  // (q_rows, heads)
@group(0) @binding(6) var<uniform> p: Params;

// Scores of keys that a row may not see. Its own key comes last, so whatever weight these got by then is rescaled to 0.
const MASKED = -1e30;

fn row_quad_0(row: u32, head: u32, quad: u32) -> X { return q[(row * p.heads + head) * D4 + quad]; }
fn column_quad_0(row: u32, head: u32, quad: u32) -> X { return k[(row * p.kv_heads + head) * D4 + quad]; }
fn column_quad_1(row: u32, head: u32, quad: u32) -> X { return v[(row * p.kv_heads + head) * D4 + quad]; }

fn largest(x: vec4f) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let r = thread / THREAD_COLS;
  let c = thread % THREAD_COLS;
  let head = group.y;
  let kv_head = head / (p.heads / p.kv_heads);
  let table = select(0u, p.rows, 2u * head >= p.heads);
  // The last rows have most keys: they start first.
  let block = (groups.x - 1u - group.x) * ROWS;
  let queries = Side(block, min(block + ROWS, p.q_rows), head);
  let key_end = min(p.q_start + queries.end, p.k_start + p.k_rows);
  let row_start = queries.start + 4u * r;
  // Start from nothing, or from what earlier keys gave.
  #for g in 0..ROW_QUADS
    var running_max_$g = vec4f(MASKED);
    var sum_$g = vec4f();
    #for h in 0..4
      #for i in 0..SUMS
        var o_$g_$h_$i = vec4f();
      #end
      if (RESUME) {
        let pair = min(row_start + 4u * THREAD_ROWS * $gu + $hu, queries.end - 1u) * p.heads + head;
        running_max_$g[$h] = lse[pair];
        sum_$g[$h] = select(0.0, 1.0, c == 0u);
        #for i in 0..SUMS
          if (c + THREAD_COLS * $iu < D4) { o_$g_$h_$i = load_X(o[pair * D4 + c + THREAD_COLS * $iu]); }
        #end
      }
    #end
  #end
  let last_first = first[table + p.q_start + queries.end - 1u];
  for (var key = max(first[table + p.q_start + queries.start], p.k_start); key < key_end; key += COLUMNS) {
    let keys = Side(key - p.k_start, key_end - p.k_start, kv_head);
    // Scores of a tile of keys.
    let scores = scores_0(thread, queries, keys);
    load_stage_1(thread, keys, 0u);
    #for g in 0..ROW_QUADS
      #for h in 0..4
        var x_$g_$h = capped(scores.x_$g_$h * p.scale);
      #end
    #end
    // Masked, but where every row sees every key.
    if (key < last_first || key + COLUMNS > min(p.q_start + queries.start + 1u, key_end)) {
      let column = key + 4u * c + vec4u(0u, 1u, 2u, 3u);
      #for g in 0..ROW_QUADS
        #for h in 0..4
          let row_$g_$h = p.q_start + min(row_start + 4u * THREAD_ROWS * $gu + $hu, queries.end - 1u);
          x_$g_$h = select(
            vec4f(MASKED),
            x_$g_$h,
            (column >= vec4u(first[table + row_$g_$h])) & (column <= vec4u(min(row_$g_$h, key_end - 1u))),
          );
        #end
      #end
    }
    // The largest of four rows for each thread of a row, where the weights will be.
    #for g in 0..ROW_QUADS
      weights[0][c][r + THREAD_ROWS * $gu] =
        vec4f(largest(x_$g_0), largest(x_$g_1), largest(x_$g_2), largest(x_$g_3));
    #end
    workgroupBarrier();
    // The running max, and by what it rescales the sums so far.
    #for g in 0..ROW_QUADS
      let previous_max_$g = running_max_$g;
      for (var n = 0u; n < THREAD_COLS; n++) {
        running_max_$g = max(running_max_$g, weights[0][n][r + THREAD_ROWS * $gu]);
      }
      let rescale_$g = exp(previous_max_$g - running_max_$g);
      sum_$g *= rescale_$g;
    #end
    workgroupBarrier();
    // Weights.
    #for g in 0..ROW_QUADS
      #for h in 0..4
        let w_$g_$h = exp(x_$g_$h - running_max_$g[$h]);
        sum_$g[$h] += dot(w_$g_$h, vec4f(1.0));
        weights[$h][c][r + THREAD_ROWS * $gu] = w_$g_$h;
        #for i in 0..SUMS
          o_$g_$h_$i *= rescale_$g[$h];
        #end
      #end
    #end
    // Add weights x V.
    for (var start = 0u; start < COLUMNS; start += STAGE) {
      stage(thread);
      if (start + STAGE < COLUMNS) { load_stage_1(thread, keys, start + STAGE); }
      for (var n = 0u; n < STAGE / 4u; n++) {
        #for g in 0..ROW_QUADS
          #for h in 0..4
            let p_$g_$h = weights[$h][start / 4u + n][r + THREAD_ROWS * $gu];
          #end
        #end
        #for i in 0..SUMS
          #for d in 0..4
            let v_$i_$d = tile[full_tile + n][$d][c + THREAD_COLS * $iu];
            #for g in 0..ROW_QUADS
              #for h in 0..4
                o_$g_$h_$i = fma(vec4f(p_$g_$h[$d]), v_$i_$d, o_$g_$h_$i);
              #end
            #end
          #end
        #end
      }
    }
  }
  // Put the sums of a row's threads together; write o and lse.
  workgroupBarrier();
  #for g in 0..ROW_QUADS
    weights[0][c][r + THREAD_ROWS * $gu] = sum_$g;
  #end
  workgroupBarrier();
  #for g in 0..ROW_QUADS
    sum_$g = vec4f();
    for (var n = 0u; n < THREAD_COLS; n++) { sum_$g += weights[0][n][r + THREAD_ROWS * $gu]; }
    // Nothing was summed if all keys that the row sees lie in other parts.
    sum_$g = max(sum_$g, vec4f(1e-30));
    let inverse_sum_$g = 1.0 / sum_$g;
    let log_sum_$g = running_max_$g + log(sum_$g);
    #for h in 0..4
      if (row_start + 4u * THREAD_ROWS * $gu + $hu < p.q_rows) {
        let pair = (row_start + 4u * THREAD_ROWS * $gu + $hu) * p.heads + head;
        #for i in 0..SUMS
          if (c + THREAD_COLS * $iu < D4) {
            o[pair * D4 + c + THREAD_COLS * $iu] = store_X(o_$g_$h_$i * inverse_sum_$g[$h]);
          }
        #end
        if (c == 0u) { lse[pair] = log_sum_$g[$h]; }
      }
    #end
  #end
}
