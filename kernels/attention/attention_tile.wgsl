// Scores by tiles in workgroup memory, for devices where barriers are cheap. A workgroup of THREAD_ROWS x THREAD_COLS
// threads takes OWN rows of its own (queries, or keys) and goes over OTHER rows a step. Thread (r, c) holds the scores
// of own rows r, r + THREAD_ROWS, .. and other rows 4c to 4c + 3. Neighbours in c read neighbouring quads, neighbours in
// r mostly the same ones. The kernel defines own_0, other_0, .. : a quad of a row.

override THREAD_ROWS: u32;
override THREAD_COLS: u32;
// Own rows of a thread, by four.
override ROW_QUADS: u32;
// Quads of a head.
override D4: u32;
// Quads of a head in the tile at a time: divides D4.
override CHUNK: u32;
// Other rows in the tile at a time when they are summed: divides OTHER.
override STAGE: u32;
override TILE: u32;
override PRODUCTS: u32;
override STAGED: u32;
// Quads of a chunk, own and other, and of a stage that a thread loads. All are under way before the first is stored.
override OWN_LOADS: u32;
override OTHER_LOADS: u32;
override STAGE_LOADS: u32;
override THREADS = THREAD_ROWS * THREAD_COLS;
override OWN = 4u * THREAD_ROWS * ROW_QUADS;
override OTHER = 4u * THREAD_COLS;
// One more than there are rows, so that threads that write different quads of a row meet different banks.
override OWN_LINE = OWN + 1u;
override OTHER_LINE = OTHER + 1u;
override OTHER_TILE = CHUNK * OWN_LINE;
override WEIGHTS = THREAD_COLS * OWN_LINE;

// Rows of one head, counted in their binding.
struct Side { start: u32, end: u32, head: u32 }

// Of own row r + THREAD_ROWS (4g + h) with four other rows.
struct Scores {
#for g in 0..ROW_QUADS
#for h in 0..4
  x_$g_$h: vec4f,
#end
#end
}

var<workgroup> tile: array<vec4f, TILE>;
// (THREAD_COLS, OWN_LINE): weights of the other rows 4c to 4c + 3 for an own row.
var<workgroup> weights: array<vec4f, WEIGHTS>;

#for m in 0..PRODUCTS
fn scores_$m(thread: u32, own: Side, other: Side) -> Scores {
  let r = thread / THREAD_COLS;
  let c = thread % THREAD_COLS;
#for g in 0..ROW_QUADS
#for h in 0..4
  var x_$g_$h = vec4f();
#end
#end
  for (var chunk = 0u; chunk < D4; chunk += CHUNK) {
#for n in 0..OWN_LOADS
    let own_n_$n = thread + $nu * THREADS;
    let own_quad_$n =
      own_$m(min(own.start + own_n_$n / CHUNK, own.end - 1u), own.head, chunk + own_n_$n % CHUNK);
#end
#for n in 0..OTHER_LOADS
    let other_n_$n = thread + $nu * THREADS;
    let other_quad_$n =
      other_$m(min(other.start + other_n_$n / CHUNK, other.end - 1u), other.head, chunk + other_n_$n % CHUNK);
#end
    workgroupBarrier();
#for n in 0..OWN_LOADS
    if (own_n_$n < OWN * CHUNK) { tile[own_n_$n % CHUNK * OWN_LINE + own_n_$n / CHUNK] = own_quad_$n; }
#end
#for n in 0..OTHER_LOADS
    if (other_n_$n < OTHER * CHUNK) {
      let row = other_n_$n / CHUNK;
      // Rows 4c + e lie at c + THREAD_COLS e.
      tile[OTHER_TILE + other_n_$n % CHUNK * OTHER_LINE + row % 4u * THREAD_COLS + row / 4u] = other_quad_$n;
    }
#end
    workgroupBarrier();
    for (var quad = 0u; quad < CHUNK; quad++) {
      let own_at = quad * OWN_LINE + r;
      let other_at = OTHER_TILE + quad * OTHER_LINE + c;
#for e in 0..4
      let other_$e = tile[other_at + $eu * THREAD_COLS];
#end
#for d in 0..4
      let others_$d = vec4f(other_0[$d], other_1[$d], other_2[$d], other_3[$d]);
#end
#for g in 0..ROW_QUADS
#for h in 0..4
      let own_$g_$h = tile[own_at + THREAD_ROWS * (4u * $gu + $hu)];
#for d in 0..4
      x_$g_$h = fma(vec4f(own_$g_$h[$d]), others_$d, x_$g_$h);
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
// Brings STAGE other rows to the tile: (STAGE, D4).
fn stage_$m(thread: u32, other: Side, start: u32) {
#for n in 0..STAGE_LOADS
  let n_$n = thread + $nu * THREADS;
  let quad_$n = other_$m(min(other.start + start + n_$n / D4, other.end - 1u), other.head, n_$n % D4);
#end
  workgroupBarrier();
#for n in 0..STAGE_LOADS
  if (n_$n < STAGE * D4) { tile[n_$n] = quad_$n; }
#end
  workgroupBarrier();
}
#end
