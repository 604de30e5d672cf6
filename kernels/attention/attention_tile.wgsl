// Scores by tiles in workgroup memory, for devices where barriers are cheap. A workgroup of THREAD_ROWS x THREAD_COLS
// threads makes the results of ROWS rows (queries, or keys) and goes over COLUMNS columns (the other ones) a step. Thread
// (r, c) holds the scores of rows 4 (r + THREAD_ROWS g) + h and columns 4c to 4c + 3. The kernel defines row_quad_m and
// column_quad_m: a quad of a row or a column as stored, for each product m.
//
// What is multiplied passes through two tiles in turn: CHUNK quads of the rows and columns of a product, or STAGE columns
// whole. It is loaded while the one before is multiplied, and one barrier lies between its way in and its use: whoever
// writes to a tile has passed the barrier behind the last use of it.

#needs THREAD_ROWS THREAD_COLS
#needs LINE         // quads of a line of the tile: odd, so that neighbours write to different banks
#needs PRODUCTS     // pairs of rows and columns that are multiplied into scores
#needs STAGED       // kinds of columns that are summed by weights
#needs ROW_QUADS    // rows of a thread, by four
#needs D4           // quads of a head
#needs CHUNK        // quads of a head in a tile: divides D4
#needs STAGE        // columns in a tile when they are summed: divides COLUMNS, at most 4 CHUNK
#needs ROW_LOADS COLUMN_LOADS STAGE_LOADS    // quads of a chunk and of a stage that a thread loads

const THREADS = THREAD_ROWS * THREAD_COLS;
const ROW_FOURS = THREAD_ROWS * ROW_QUADS;
const ROWS = 4u * ROW_FOURS;
const COLUMNS = 4u * THREAD_COLS;
const ROW_LINE = ROW_FOURS + 1u - ROW_FOURS % 2u;

// Rows, or columns, of one head, counted in their binding.
struct Side { start: u32, end: u32, head: u32 }

// Of row 4 (r + THREAD_ROWS g) + h with four columns.
struct Scores {
  #for g in 0..ROW_QUADS
    #for h in 0..4
      x_$g_$h: vec4f,
    #end
  #end
}

// [quad of the chunk][e][row 4i + e at i, column 4i + e at ROW_FOURS + i], or [n][e][quad of column 4n + e]; one tile
// behind the other. Three subscripts, for each is checked against its own bound: those that do not change in a loop are
// checked once.
var<workgroup> tile: array<array<array<vec4f, LINE>, 4>, 2u * CHUNK>;
// [h][c][i]: weights of the columns 4c to 4c + 3 for row 4i + h.
var<workgroup> weights: array<array<array<vec4f, ROW_LINE>, THREAD_COLS>, 4>;

// First line of the tile to write next, and of the one to read.
var<private> free_tile: u32;
var<private> full_tile: u32;

// Lets all threads read what they have written, and the other tile be written.
fn turn_tiles() {
  workgroupBarrier();
  full_tile = free_tile;
  free_tile = CHUNK - free_tile;
}

// Where quad number `n` of a chunk goes: its quad of the head, e, and i. Eight neighbours write to different banks.
fn place(n: u32) -> vec3u {
  if (CHUNK % 2u == 0u) {
    return vec3u(n % 2u + n / 8u % max(CHUNK / 2u, 1u) * 2u, n / 2u % 4u, n / (4u * CHUNK));
  }
  return vec3u(n % CHUNK, n / CHUNK % 4u, n / (4u * CHUNK));
}

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
    #for n in 0..ROW_LOADS
      let row_at_$n = place(thread + $nu * THREADS);
      let row_$n = min(rows.start + 4u * row_at_$n.z + row_at_$n.y, rows.end - 1u);
      var row_next_$n = row_quad_$m(row_$n, rows.head, row_at_$n.x);
    #end
    #for n in 0..COLUMN_LOADS
      let column_at_$n = place(thread + $nu * THREADS);
      let column_$n = min(columns.start + 4u * column_at_$n.z + column_at_$n.y, columns.end - 1u);
      var column_next_$n = column_quad_$m(column_$n, columns.head, column_at_$n.x);
    #end
    for (var chunk = 0u; chunk < D4; chunk += CHUNK) {
      #for n in 0..ROW_LOADS
        if (thread + $nu * THREADS < ROWS * CHUNK) {
          tile[free_tile + row_at_$n.x][row_at_$n.y][row_at_$n.z] = load_X(row_next_$n);
        }
      #end
      #for n in 0..COLUMN_LOADS
        if (thread + $nu * THREADS < COLUMNS * CHUNK) {
          tile[free_tile + column_at_$n.x][column_at_$n.y][ROW_FOURS + column_at_$n.z] = load_X(column_next_$n);
        }
      #end
      turn_tiles();
      // Load the next chunk.
      if (chunk + CHUNK < D4) {
        #for n in 0..ROW_LOADS
          row_next_$n = row_quad_$m(row_$n, rows.head, chunk + CHUNK + row_at_$n.x);
        #end
        #for n in 0..COLUMN_LOADS
          column_next_$n = column_quad_$m(column_$n, columns.head, chunk + CHUNK + column_at_$n.x);
        #end
      }
      // Add this one's products to the scores.
      for (var q = full_tile; q < full_tile + CHUNK; q++) {
        let columns_at = transpose(mat4x4f(
          tile[q][0][ROW_FOURS + c],
          tile[q][1][ROW_FOURS + c],
          tile[q][2][ROW_FOURS + c],
          tile[q][3][ROW_FOURS + c],
        ));
        #for g in 0..ROW_QUADS
          #for h in 0..4
            let row_$g_$h = tile[q][$h][r + THREAD_ROWS * $gu];
            #for d in 0..4
              x_$g_$h = fma(vec4f(row_$g_$h[$d]), columns_at[$d], x_$g_$h);
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

// Quads of a stage on their way.
#for n in 0..STAGE_LOADS
  var<private> staged_$n: X;
#end

#for m in 0..STAGED
  // Begins to load STAGE columns.
  fn load_stage_$m(thread: u32, columns: Side, start: u32) {
    #for n in 0..STAGE_LOADS
      {
        let n = thread + $nu * THREADS;
        staged_$n = column_quad_$m(min(columns.start + start + n / D4, columns.end - 1u), columns.head, n % D4);
      }
    #end
  }
#end

// Brings them to the tile.
fn stage(thread: u32) {
  #for n in 0..STAGE_LOADS
    {
      let n = thread + $nu * THREADS;
      if (n < STAGE * D4) { tile[free_tile + n / D4 / 4u][n / D4 % 4u][n % D4] = load_X(staged_$n); }
    }
  #end
  turn_tiles();
}
