// Scores by tiles in workgroup memory, for devices where barriers are cheap. A workgroup of THREAD_ROWS x THREAD_COLS
// threads makes the results of ROWS rows (queries, or keys) and goes over COLUMNS columns (the other ones) a step. Thread
// (r, c) holds the scores of rows r, r + THREAD_ROWS, .. and columns 4c to 4c + 3. Neighbours in c read neighbouring
// quads, neighbours in r mostly the same ones. The kernel defines row_quad_m and column_quad_m: a quad of a row or a
// column, for each product m.

#needs THREAD_ROWS THREAD_COLS
#needs TILE         // quads of the tile
#needs PRODUCTS     // pairs of rows and columns that are multiplied into scores
#needs STAGED       // kinds of columns that are summed by weights
#needs ROW_QUADS    // rows of a thread, by four
#needs D4           // quads of a head
#needs CHUNK        // quads of a head in the tile at a time: divides D4
#needs STAGE        // columns in the tile at a time when they are summed: divides COLUMNS
#needs ROW_LOADS COLUMN_LOADS STAGE_LOADS    // quads of a chunk and of a stage that a thread loads

const THREADS = THREAD_ROWS * THREAD_COLS;
const ROWS = 4u * THREAD_ROWS * ROW_QUADS;
const COLUMNS = 4u * THREAD_COLS;
// One more than there are rows, so that threads that write different quads of a row meet different banks.
const ROW_LINE = ROWS + 1u;
const COLUMN_LINE = COLUMNS + 1u;
const COLUMN_TILE = CHUNK * ROW_LINE;
const WEIGHTS = THREAD_COLS * ROW_LINE;

// Rows, or columns, of one head, counted in their binding.
struct Side { start: u32, end: u32, head: u32 }

// Of row r + THREAD_ROWS (4g + h) with four columns.
struct Scores {
  #for g in 0..ROW_QUADS
    #for h in 0..4
      x_$g_$h: vec4f,
    #end
  #end
}

var<workgroup> tile: array<vec4f, TILE>;
// (THREAD_COLS, ROW_LINE): weights of the columns 4c to 4c + 3 for a row.
var<workgroup> weights: array<vec4f, WEIGHTS>;

#for m in 0..PRODUCTS
  #needs row_quad_$m column_quad_$m
  fn scores_$m(thread: u32, rows: Side, columns: Side) -> Scores {
    let r = thread / THREAD_COLS;
    let c = thread % THREAD_COLS;
    #for g in 0..ROW_QUADS
      #for h in 0..4
        var x_$g_$h = vec4f();
      #end
    #end
    for (var chunk = 0u; chunk < D4; chunk += CHUNK) {
      // Load a chunk of rows and columns: all loads are under way before the first is stored.
      #for n in 0..ROW_LOADS
        let row_n_$n = thread + $nu * THREADS;
        let row_value_$n =
          row_quad_$m(min(rows.start + row_n_$n / CHUNK, rows.end - 1u), rows.head, chunk + row_n_$n % CHUNK);
      #end
      #for n in 0..COLUMN_LOADS
        let column_n_$n = thread + $nu * THREADS;
        let column_value_$n =
          column_quad_$m(min(columns.start + column_n_$n / CHUNK, columns.end - 1u), columns.head, chunk + column_n_$n % CHUNK);
      #end
      workgroupBarrier();
      #for n in 0..ROW_LOADS
        if (row_n_$n < ROWS * CHUNK) { tile[row_n_$n % CHUNK * ROW_LINE + row_n_$n / CHUNK] = row_value_$n; }
      #end
      #for n in 0..COLUMN_LOADS
        if (column_n_$n < COLUMNS * CHUNK) {
          let row = column_n_$n / CHUNK;
          // Rows 4c + e lie at c + THREAD_COLS e.
          tile[COLUMN_TILE + column_n_$n % CHUNK * COLUMN_LINE + row % 4u * THREAD_COLS + row / 4u] = column_value_$n;
        }
      #end
      workgroupBarrier();
      // Add the chunk's products to the scores.
      for (var quad = 0u; quad < CHUNK; quad++) {
        let row_at = quad * ROW_LINE + r;
        let column_at = COLUMN_TILE + quad * COLUMN_LINE + c;
        #for e in 0..4
          let column_$e = tile[column_at + $eu * THREAD_COLS];
        #end
        #for d in 0..4
          let columns_$d = vec4f(column_0[$d], column_1[$d], column_2[$d], column_3[$d]);
        #end
        #for g in 0..ROW_QUADS
          #for h in 0..4
            let row_$g_$h = tile[row_at + THREAD_ROWS * (4u * $gu + $hu)];
            #for d in 0..4
              x_$g_$h = fma(vec4f(row_$g_$h[$d]), columns_$d, x_$g_$h);
            #end
          #end
        #end
      }
    }
    var scores: Scores;
    #for g in 0..ROW_QUADS
      #for h in 0..4
        scores.x_$g_$h = x_$g_$h;
      #end
    #end
    return scores;
  }
#end

#for m in 0..STAGED
  // Brings STAGE columns to the tile: (STAGE, D4).
  fn stage_$m(thread: u32, columns: Side, start: u32) {
    #for n in 0..STAGE_LOADS
      let n_$n = thread + $nu * THREADS;
      let quad_$n = column_quad_$m(min(columns.start + start + n_$n / D4, columns.end - 1u), columns.head, n_$n % D4);
    #end
    workgroupBarrier();
    #for n in 0..STAGE_LOADS
      if (n_$n < STAGE * D4) { tile[n_$n] = quad_$n; }
    #end
    workgroupBarrier();
  }
#end
