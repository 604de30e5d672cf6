// Gradient of the queries by tiles in workgroup memory (attention_tile.wgsl): a workgroup takes ROWS query rows of one
// head and goes over its keys, COLUMNS a step. Thread (r, c) holds the sums of quads c, c + THREAD_COLS, .. of its rows.

#needs Side scores_0 scores_1 load_stage_0 stage capped before_cap
#needs D4 THREADS THREAD_COLS ROWS ROW_QUADS THREAD_ROWS COLUMNS STAGE
#needs SUMS      // quads of a row that a thread sums: D4 / THREAD_COLS, rounded up
#needs RESUME    // whether to add to the dq of earlier keys

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one table of first
  q_start: u32,  // first row of the bound part of q, d_o, stats and dq
  q_rows: u32,
  k_start: u32,  // first row of the bound part of k and v
  k_rows: u32,
  scale: f32,
  cap: f32,      // soft cap of the scores
}
@group(0) @binding(0) var<storage, read> q: array<X>;          // (q_rows, heads, D4)
@group(0) @binding(1) var<storage, read> k: array<X>;          // (k_rows, kv_heads, D4)
@group(0) @binding(2) var<storage, read> v: array<X>;          // (k_rows, kv_heads, D4)
@group(0) @binding(3) var<storage, read> d_o: array<X>;        // (q_rows, heads, D4)
@group(0) @binding(4) var<storage, read> stats: array<vec2f>;  // (q_rows, heads): lse, sum of dO * O
@group(0) @binding(5) var<storage, read> first: array<u32>;    // (2, rows)
@group(0) @binding(6) var<storage, read_write> dq: array<X>;   // (q_rows, heads, D4)
@group(0) @binding(7) var<uniform> p: Params;

fn row_quad_0(row: u32, head: u32, quad: u32) -> X { return q[(row * p.heads + head) * D4 + quad]; }
fn row_quad_1(row: u32, head: u32, quad: u32) -> X { return d_o[(row * p.heads + head) * D4 + quad]; }
fn column_quad_0(row: u32, head: u32, quad: u32) -> X { return k[(row * p.kv_heads + head) * D4 + quad]; }
fn column_quad_1(row: u32, head: u32, quad: u32) -> X { return v[(row * p.kv_heads + head) * D4 + quad]; }

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
  #for g in 0..ROW_QUADS
    #for h in 0..4
      let row_$g_$h = min(row_start + 4u * THREAD_ROWS * $gu + $hu, queries.end - 1u);
      let stats_$g_$h = stats[row_$g_$h * p.heads + head];
      #for i in 0..SUMS
        var dq_$g_$h_$i = vec4f();
      #end
    #end
  #end
  let last_first = first[table + p.q_start + queries.end - 1u];
  for (var key = max(first[table + p.q_start + queries.start], p.k_start); key < key_end; key += COLUMNS) {
    let keys = Side(key - p.k_start, key_end - p.k_start, kv_head);
    // Scores and the gradients of their probabilities, of a tile of keys.
    let scores = scores_0(thread, queries, keys);
    let dp = scores_1(thread, queries, keys);
    load_stage_0(thread, keys, 0u);
    // dS = P (dP - sum of dO * O), with P from the saved lse.
    #for g in 0..ROW_QUADS
      #for h in 0..4
        let x_$g_$h = capped(scores.x_$g_$h * p.scale);
        var w_$g_$h = before_cap(exp(x_$g_$h - stats_$g_$h.x) * (dp.x_$g_$h - stats_$g_$h.y), x_$g_$h);
      #end
    #end
    // Masked, but where every row sees every key.
    if (key < last_first || key + COLUMNS > min(p.q_start + queries.start + 1u, key_end)) {
      let column = key + 4u * c + vec4u(0u, 1u, 2u, 3u);
      #for g in 0..ROW_QUADS
        #for h in 0..4
          w_$g_$h = select(
            vec4f(),
            w_$g_$h,
            (column >= vec4u(first[table + p.q_start + row_$g_$h])) &
              (column <= vec4u(min(p.q_start + row_$g_$h, key_end - 1u))),
          );
        #end
      #end
    }
    #for g in 0..ROW_QUADS
      #for h in 0..4
        weights[$h][c][r + THREAD_ROWS * $gu] = w_$g_$h;
      #end
    #end
    // Add dS x K.
    for (var start = 0u; start < COLUMNS; start += STAGE) {
      stage(thread);
      if (start + STAGE < COLUMNS) { load_stage_0(thread, keys, start + STAGE); }
      for (var n = 0u; n < STAGE / 4u; n++) {
        #for g in 0..ROW_QUADS
          #for h in 0..4
            let ds_$g_$h = weights[$h][start / 4u + n][r + THREAD_ROWS * $gu];
          #end
        #end
        #for i in 0..SUMS
          #for d in 0..4
            let k_$i_$d = tile[full_tile + n][$d][c + THREAD_COLS * $iu];
            #for g in 0..ROW_QUADS
              #for h in 0..4
                dq_$g_$h_$i = fma(vec4f(ds_$g_$h[$d]), k_$i_$d, dq_$g_$h_$i);
              #end
            #end
          #end
        #end
      }
    }
  }
  // Write dq.
  #for g in 0..ROW_QUADS
    #for h in 0..4
      #for i in 0..SUMS
        if (row_start + 4u * THREAD_ROWS * $gu + $hu < p.q_rows && c + THREAD_COLS * $iu < D4) {
          let at = (row_$g_$h * p.heads + head) * D4 + c + THREAD_COLS * $iu;
          dq_$g_$h_$i *= p.scale;
          if (RESUME) { dq_$g_$h_$i += load_X(dq[at]); }
          dq[at] = store_X(dq_$g_$h_$i);
        }
      #end
    #end
  #end
}
