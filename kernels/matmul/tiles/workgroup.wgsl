// C = alpha A B^T + beta C, tiles of both operands in workgroup memory.
//
// A workgroup of THREAD_ROWS x THREAD_COLS threads makes a tile: each thread sums 4 ROW_QUADS rows by 4 COL_QUADS
// columns in registers, its quads THREAD_ROWS and THREAD_COLS quads apart, so that neighbours read neighbouring quads
// of the tiles. Per step of 16 along the depth a thread loads at most one 4 x 4 block of each operand, B's from the
// last thread down: where there are more threads than blocks, some load A and the others B. The loads of a step are
// under way while the step before is multiplied; values are decoded once, on their way into the tile.
//
// A tile has at most as many rows, and as many columns, as the workgroup has threads.
//
// Grid: x = rows of a tile, y = columns of a tile, z = parts of the depth.   Precision: sums in f32.

#needs b_begin RawA RawB a_fetch b_fetch a_columns b_columns store
#needs THREAD_ROWS THREAD_COLS ROW_QUADS COL_QUADS

const THREADS = THREAD_ROWS * THREAD_COLS;
const A_QUADS = THREAD_ROWS * ROW_QUADS;        // quads of rows in a tile
const B_QUADS = THREAD_COLS * COL_QUADS;
const STEP = 4u;                                // quads along the depth in a step

// By depth, then by quads of rows or columns. Two subscripts, for each is checked against its own bound: those that do
// not change along the depth are checked once.
var<workgroup> a_tile: array<array<vec4f, A_QUADS>, 16>;
var<workgroup> b_tile: array<array<vec4f, B_QUADS>, 16>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) tile: vec3u, @builtin(local_invocation_index) thread: u32) {
  b_begin(thread);
  let from_last = THREADS - 1u - thread;
  let loads_a = thread < STEP * A_QUADS;
  let loads_b = from_last < STEP * B_QUADS;
  let a_quad = thread % A_QUADS;
  let a_step = thread / A_QUADS;
  let b_quad = from_last % B_QUADS;
  let b_step = from_last / B_QUADS;
  let row = thread / THREAD_COLS;
  let column = thread % THREAD_COLS;
  #for r in 0..ROW_QUADS
    #for s in 0..COL_QUADS
      #for e in 0..4
        var sum$r_$s_$e = vec4f();
      #end
    #end
  #end
  // Load the first step of both operands.
  let iq = A_QUADS * tile.x + a_quad;
  let jq = B_QUADS * tile.y + b_quad;
  let begin = tile.z * p.span;
  let end = min(begin + p.span, p.depth);
  var a_next = RawA();
  var b_next = RawB();
  if (loads_a && begin + a_step < end) { a_next = a_fetch(iq, begin + a_step); }
  if (loads_b && begin + b_step < end) { b_fetch(&b_next, jq, begin + b_step); }
  for (var rq = begin; rq < end; rq += STEP) {
    // Decode what was loaded into the tiles.
    if (loads_a) {
      let block = a_columns(a_next);
      #for d in 0..4
        a_tile[4u * a_step + $du][a_quad] = block[$d];
      #end
    }
    if (loads_b) {
      let block = b_columns(b_next);
      #for d in 0..4
        b_tile[4u * b_step + $du][b_quad] = block[$d];
      #end
    }
    workgroupBarrier();
    // Load the next step. Past the end A is 0, and B whatever it was.
    let next = rq + STEP;
    a_next = RawA();
    if (loads_a && next + a_step < end) { a_next = a_fetch(iq, next + a_step); }
    if (loads_b && next + b_step < end) { b_fetch(&b_next, jq, next + b_step); }
    // Multiply.
    for (var first = 0u; first < 4u * STEP; first += 4u) {
      #for d in 0..4
        #for r in 0..ROW_QUADS
          let a$d_$r = a_tile[first + $du][$ru * THREAD_ROWS + row];
        #end
        #for s in 0..COL_QUADS
          let b$d_$s = b_tile[first + $du][$su * THREAD_COLS + column];
          #for r in 0..ROW_QUADS
            #for e in 0..4
              sum$r_$s_$e = fma(vec4f(a$d_$r[$e]), b$d_$s, sum$r_$s_$e);
            #end
          #end
        #end
      #end
    }
    workgroupBarrier();
  }
  // Write.
  #for r in 0..ROW_QUADS
    #for s in 0..COL_QUADS
      #for e in 0..4
        store(
          tile.z,
          4u * (A_QUADS * tile.x + $ru * THREAD_ROWS + row) + $eu,
          B_QUADS * tile.y + $su * THREAD_COLS + column,
          sum$r_$s_$e,
        );
      #end
    #end
  #end
}
