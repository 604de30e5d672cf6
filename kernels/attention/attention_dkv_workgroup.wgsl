// Gradients of the keys and values by tiles in workgroup memory (attention_tile.wgsl): a workgroup takes ROWS key rows of
// one kv head and goes over the query heads of that kv head, COLUMNS queries a step, always in the same order. Thread
// (r, c) holds the sums of quads c, c + THREAD_COLS, .. of its rows.

#needs Side scores_0 scores_1 load_stage_0 stage capped before_cap
#needs D4 THREADS THREAD_COLS ROWS ROW_QUADS THREAD_ROWS COLUMNS STAGE
#needs SUMS      // quads of a row that a thread sums: D4 / THREAD_COLS, rounded up
#needs RESUME    // whether to add to the dk and dv of earlier queries

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one table of last
  q_start: u32,  // first row of the bound part of q, d_o and stats
  q_rows: u32,
  k_start: u32,  // first row of the bound part of k, v, dk and dv
  k_rows: u32,
  scale: f32,
  cap: f32,      // soft cap of the scores
}
@group(0) @binding(0) var<storage, read> q: array<X>;          // (q_rows, heads, D4)
@group(0) @binding(1) var<storage, read> k: array<X>;          // (k_rows, kv_heads, D4)
@group(0) @binding(2) var<storage, read> v: array<X>;          // (k_rows, kv_heads, D4)
@group(0) @binding(3) var<storage, read> d_o: array<X>;        // (q_rows, heads, D4)
@group(0) @binding(4) var<storage, read> stats: array<vec2f>;  // (q_rows, heads): lse, sum of dO * O
@group(0) @binding(5) var<storage, read> last: array<u32>;     // (2, rows)
@group(0) @binding(6) var<storage, read_write> dk: array<X>;   // (k_rows, kv_heads, D4)
@group(0) @binding(7) var<storage, read_write> dv: array<X>;   // (k_rows, kv_heads, D4)
@group(0) @binding(8) var<uniform> p: Params;

fn row_quad_0(row: u32, head: u32, quad: u32) -> X { return k[(row * p.kv_heads + head) * D4 + quad]; }
fn row_quad_1(row: u32, head: u32, quad: u32) -> X { return v[(row * p.kv_heads + head) * D4 + quad]; }
fn column_quad_0(row: u32, head: u32, quad: u32) -> X { return q[(row * p.heads + head) * D4 + quad]; }
fn column_quad_1(row: u32, head: u32, quad: u32) -> X { return d_o[(row * p.heads + head) * D4 + quad]; }

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let r = thread / THREAD_COLS;
  let c = thread % THREAD_COLS;
  let kv_head = group.y;
  let sharers = p.heads / p.kv_heads;
  let keys = Side(group.x * ROWS, min(group.x * ROWS + ROWS, p.k_rows), kv_head);
  let row_start = keys.start + 4u * r;
  #for g in 0..ROW_QUADS
    #for h in 0..4
      let row_$g_$h = min(row_start + 4u * THREAD_ROWS * $gu + $hu, keys.end - 1u);
      #for i in 0..SUMS
        // Of dk and of dv.
        var sum_0_$g_$h_$i = vec4f();
        var sum_1_$g_$h_$i = vec4f();
      #end
    #end
  #end
  for (var head = kv_head * sharers; head < (kv_head + 1u) * sharers; head++) {
    let table = select(0u, p.rows, 2u * head >= p.heads) + p.k_start;
    let query_end = min(last[table + keys.end - 1u] + 1u, p.q_start + p.q_rows);
    let first_last = last[table + keys.start];
    for (var query = max(p.k_start + keys.start, p.q_start); query < query_end; query += COLUMNS) {
      let queries = Side(query - p.q_start, query_end - p.q_start, head);
      // Scores and the gradients of their probabilities, of a tile of queries.
      let scores = scores_0(thread, keys, queries);
      let dp = scores_1(thread, keys, queries);
      load_stage_0(thread, queries, 0u);
      // P from the saved lse, and dS = P (dP - sum of dO * O).
      let column = query + 4u * c + vec4u(0u, 1u, 2u, 3u);
      #for e in 0..4
        let stats_$e = stats[(min(column[$e], query_end - 1u) - p.q_start) * p.heads + head];
      #end
      let log_sum = vec4f(stats_0.x, stats_1.x, stats_2.x, stats_3.x);
      let mean = vec4f(stats_0.y, stats_1.y, stats_2.y, stats_3.y);
      #for g in 0..ROW_QUADS
        #for h in 0..4
          let x_$g_$h = capped(scores.x_$g_$h * p.scale);
          var weight_1_$g_$h = exp(x_$g_$h - log_sum);
        #end
      #end
      // Masked, but where every query sees every key.
      if (query + 1u < p.k_start + keys.end || query + COLUMNS > min(first_last + 1u, query_end)) {
        #for g in 0..ROW_QUADS
          #for h in 0..4
            weight_1_$g_$h = select(
              vec4f(),
              weight_1_$g_$h,
              (column >= vec4u(p.k_start + row_$g_$h)) &
                (column <= vec4u(min(last[table + row_$g_$h], query_end - 1u))),
            );
          #end
        #end
      }
      #for g in 0..ROW_QUADS
        #for h in 0..4
          let weight_0_$g_$h = before_cap(weight_1_$g_$h * (dp.x_$g_$h - mean), x_$g_$h);
        #end
      #end
      // Add dS x Q to dk, then P x dO to dv.
      #for m in 0..2
        #needs load_stage_$m
        if ($m == 1) {
          load_stage_$m(thread, queries, 0u);
          workgroupBarrier();
        }
        #for g in 0..ROW_QUADS
          #for h in 0..4
            weights[$h][c][r + THREAD_ROWS * $gu] = weight_$m_$g_$h;
          #end
        #end
        for (var start = 0u; start < COLUMNS; start += STAGE) {
          stage(thread);
          if (start + STAGE < COLUMNS) { load_stage_$m(thread, queries, start + STAGE); }
          for (var n = 0u; n < STAGE / 4u; n++) {
            #for g in 0..ROW_QUADS
              #for h in 0..4
                let w_$g_$h = weights[$h][start / 4u + n][r + THREAD_ROWS * $gu];
              #end
            #end
            #for i in 0..SUMS
              #for d in 0..4
                let quad_$i_$d = tile[full_tile + n][$d][c + THREAD_COLS * $iu];
                #for g in 0..ROW_QUADS
                  #for h in 0..4
                    sum_$m_$g_$h_$i = fma(vec4f(w_$g_$h[$d]), quad_$i_$d, sum_$m_$g_$h_$i);
                  #end
                #end
              #end
            #end
          }
        }
      #end
    }
  }
  // Write dk and dv.
  #for g in 0..ROW_QUADS
    #for h in 0..4
      #for i in 0..SUMS
        if (row_start + 4u * THREAD_ROWS * $gu + $hu < p.k_rows && c + THREAD_COLS * $iu < D4) {
          let at = (row_$g_$h * p.kv_heads + kv_head) * D4 + c + THREAD_COLS * $iu;
          sum_0_$g_$h_$i *= p.scale;
          if (RESUME) {
            sum_0_$g_$h_$i += load_X(dk[at]);
            sum_1_$g_$h_$i += load_X(dv[at]);
          }
          dk[at] = store_X(sum_0_$g_$h_$i);
          dv[at] = store_X(sum_1_$g_$h_$i);
        }
      #end
    #end
  #end
}
