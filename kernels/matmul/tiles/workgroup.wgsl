// C = alpha A B^T + beta C, tiles of both operands in workgroup memory, two in turn: one barrier a step.
//
// A workgroup of THREAD_ROWS x THREAD_COLS threads makes a tile: each thread sums 4 ROW_QUADS rows by 4 COL_QUADS
// columns in registers, its quads THREAD_ROWS and THREAD_COLS quads apart, so that neighbours read neighbouring quads
// of the tiles. Per step of STEP quads along the depth a thread loads A_LOADS quads of A and B_LOADS of B. The loads of
// a step are under way while the step before is multiplied; then they are decoded, once, into the tile that the step
// before that has left.
//
// Before the pair of operands it may sum another, of an inner product: pair 0, whose sums a mask may drop.
//
// Grid: x * y = tiles, z = blocks times parts of the depth.   Precision: sums in f32.

#needs tile_of product_begin b_begin A_1 QuadB_1 a_quad_1 load_A_1 b_fetch_quad_1 b_value_1 span_1
#needs a_block b_block place store kept mask_start
#needs FIRST_PAIR           // 0 where there is an inner product, else 1
#needs DROPS_INNER          // whether a mask drops elements of that
#needs THREAD_ROWS THREAD_COLS ROW_QUADS COL_QUADS
#needs STEP                 // quads along the depth in a step
#needs A_LOADS B_LOADS      // quads that a thread loads for a step
#needs A_ALONG B_ALONG      // whether quads lie along the depth, else along the rows of A, the columns of B
#needs LANE_COLS            // columns of threads that 32 neighbours cover

const THREADS = THREAD_ROWS * THREAD_COLS;
const A_QUADS = THREAD_ROWS * ROW_QUADS;        // quads of rows in a tile
const B_QUADS = THREAD_COLS * COL_QUADS;
// An odd number of quads from one row or depth to the next: what eight neighbours store lies in different banks.
const A_LINE = A_QUADS + 1u - A_QUADS % 2u;
const B_LINE = B_QUADS + 1u - B_QUADS % 2u;

// [quad of the depth][e][quad of rows or columns]: row or column e of its four, over the depth, where quads lie along
// it; else the four of them at depth e. Three subscripts, for each is checked against its own bound: those that do not
// change along the depth are checked once. The tiles of two steps lie one behind the other.
var<workgroup> a_tile: array<array<array<vec4f, A_LINE>, 4>, 2u * STEP>;
var<workgroup> b_tile: array<array<array<vec4f, B_LINE>, 4>, 2u * STEP>;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  b_begin(thread);
  let tile = tile_of(group, groups);
  product_begin(tile);
  // 32 neighbours cover LANE_COLS columns of threads: squares read fewest different quads.
  let squares = THREAD_COLS / LANE_COLS;
  let square = thread / 32u;
  let row = square / squares * (32u / LANE_COLS) + thread % 32u / LANE_COLS;
  let column = square % squares * LANE_COLS + thread % LANE_COLS;
  #for r in 0..ROW_QUADS
    #for s in 0..COL_QUADS
      #for e in 0..4
        var sum$r_$s_$e = vec4f();
      #end
    #end
  #end
  #for n in 0..A_LOADS
    let a_at$n = place(thread + $nu * THREADS, A_QUADS, A_ALONG);
    let a_row$n = A_QUADS * tile.x + a_at$n.z;
    let loads_a$n = thread + $nu * THREADS < 4u * STEP * A_QUADS;
  #end
  #for n in 0..B_LOADS
    let b_at$n = place(thread + $nu * THREADS, B_QUADS, B_ALONG);
    let b_column$n = B_QUADS * tile.y + b_at$n.z;
    let loads_b$n = thread + $nu * THREADS < 4u * STEP * B_QUADS;
  #end
  var turn = 0u;
  #for pair in FIRST_PAIR..2
    {
      let span = span_$pair(tile);
      // Load the first step of both operands.
      #for n in 0..A_LOADS
        var a_next$n = A_$pair();
        if (loads_a$n && span.x + a_at$n.x < span.y) { a_next$n = a_quad_$pair(a_row$n, a_at$n.y, span.x + a_at$n.x); }
      #end
      #for n in 0..B_LOADS
        var b_next$n = QuadB_$pair();
        if (loads_b$n && span.x + b_at$n.x < span.y) { b_fetch_quad_$pair(&b_next$n, b_column$n, b_at$n.y, span.x + b_at$n.x); }
      #end
      for (var rq = span.x; rq < span.y; rq += STEP) {
        // Decode what was loaded into this step's tiles.
        #for n in 0..A_LOADS
          if (loads_a$n) { a_tile[turn + a_at$n.x][a_at$n.y][a_at$n.z] = load_A_$pair(a_next$n); }
        #end
        #for n in 0..B_LOADS
          if (loads_b$n) { b_tile[turn + b_at$n.x][b_at$n.y][b_at$n.z] = b_value_$pair(b_next$n); }
        #end
        workgroupBarrier();
        // Load the next step. Past the end A is 0, and B whatever it was.
        let next = rq + STEP;
        #for n in 0..A_LOADS
          a_next$n = A_$pair();
          if (loads_a$n && next + a_at$n.x < span.y) { a_next$n = a_quad_$pair(a_row$n, a_at$n.y, next + a_at$n.x); }
        #end
        #for n in 0..B_LOADS
          if (loads_b$n && next + b_at$n.x < span.y) { b_fetch_quad_$pair(&b_next$n, b_column$n, b_at$n.y, next + b_at$n.x); }
        #end
        // Multiply.
        for (var q = turn; q < turn + STEP; q++) {
          #for s in 0..COL_QUADS
            let b$s = b_block(mat4x4f(
              b_tile[q][0][$su * THREAD_COLS + column],
              b_tile[q][1][$su * THREAD_COLS + column],
              b_tile[q][2][$su * THREAD_COLS + column],
              b_tile[q][3][$su * THREAD_COLS + column],
            ));
          #end
          #for r in 0..ROW_QUADS
            let a$r = a_block(mat4x4f(
              a_tile[q][0][$ru * THREAD_ROWS + row],
              a_tile[q][1][$ru * THREAD_ROWS + row],
              a_tile[q][2][$ru * THREAD_ROWS + row],
              a_tile[q][3][$ru * THREAD_ROWS + row],
            ));
            #for d in 0..4
              #for s in 0..COL_QUADS
                #for e in 0..4
                  sum$r_$s_$e = fma(vec4f(a$r[$d][$e]), b$s[$d], sum$r_$s_$e);
                #end
              #end
            #end
          #end
        }
        turn = STEP - turn;
      }
      if (DROPS_INNER && $pair == 0) {
        #for r in 0..ROW_QUADS
          #for s in 0..COL_QUADS
            #for e in 0..4
              sum$r_$s_$e = select(
                vec4f(),
                sum$r_$s_$e,
                kept(
                  mask_start(),
                  (4u * (A_QUADS * tile.x + $ru * THREAD_ROWS + row) + $eu) * p.c_stride +
                    B_QUADS * tile.y + $su * THREAD_COLS + column,
                ),
              );
            #end
          #end
        #end
      }
    }
  #end
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

// Where the quad of number `n` of a step lies in its tile: its quad of the depth, e, and its quad of rows or columns.
// Neighbours load what is next to each other in memory; eight of them store to different banks.
fn place(n: u32, quads: u32, along: bool) -> vec3u {
  if (along) {
    return vec3u(n % 2u + n / 8u % (STEP / 2u) * 2u, n / 2u % 4u, n / (4u * STEP));
  }
  return vec3u(n / quads / 4u, n / quads % 4u, n % quads);
}
