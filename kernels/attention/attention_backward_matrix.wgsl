// Gradients of attention on matrix units: f16 factors, f32 sums.   FlashAttention-2 (arXiv 2307.08691), algorithm 2, with the
// queries' gradient in a dispatch of its own, so that every sum has one order.

enable f16;
enable chromium_experimental_subgroup_matrix;
requires subgroup_id;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // offsets differ between subgroups, not within one

// A workgroup makes the gradients of ROWS rows of one head (queries, or keys), SM for each subgroup, and goes over the columns
// (the others), COLUMNS a step. Rows and columns have two factors each: products of factors 0 are scores, those of factors 1
// the gradients of probabilities. Result 0 is dS x columns 0, result 1 P x columns 1. How matrices are loaded, and what
// leaves them: attention_matrix.wgsl.
//
// Weights, with the scales of the columns in them, may be of any size. So each subgroup takes them times a power of two for
// each result, which brings the largest to 2^7 .. 2^8; where a later one would pass 2^15, the power falls and the sums with it.
//
// Barriers, two a step: after one all products are there and nobody reads the columns or the turned ones of the step
// before; after the other the weights, these columns turned and the next columns are there.

#needs capped before_cap turned_first turned_second octet_of power_of_two reciprocal
#needs Left Right Sums SM SN SK LANES    // of the matrix unit
#needs D8 HEADS KV_HEADS SUBGROUPS COLUMNS
#needs LEFTS SCORES ROUNDS               // matrices of a row of factors; of a row of scores; times that, of a row of results
#needs OCTETS                            // of scores that a lane weighs
#needs LOADS TURNED_LOADS                // octets of columns, and words of eight columns, that a thread loads for a step
#needs OF_KEYS                           // whether rows are keys
#needs RESULTS
#needs RESUME                            // whether to add to the results of earlier columns

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one table
  q_start: u32,  // first row of the bound part of what queries have
  q_rows: u32,
  k_start: u32,  // first row of the bound part of what keys have
  k_rows: u32,
  scale: f32,
  cap: f32,      // soft cap of the scores
}
#for m in 0..2
  @group(0) @binding($m) var<storage, read> rows_$m: array<vec4u>;          // q and dO, or k and v: (row count or more, ROW_HEADS, HEAD)
  @group(0) @binding(1$m) var<storage, read> columns_$m: array<vec4u>;      // k and v, or q and dO: (column count or more, COLUMN_HEADS, HEAD)
#end
@group(0) @binding(2) var<storage, read> stats: array<vec2f>;  // (q_rows, HEADS): lse, sum of dO * O
@group(0) @binding(3) var<storage, read> ends: array<u32>;     // (2, rows): first key of each query, or last query of each key
#for m in 0..RESULTS
  @group(0) @binding(2$m) var<storage, read_write> result_$m: array<X>;      // dq, or dk and dv: (row count, ROW_HEADS, D4)
#end
@group(0) @binding(4) var<uniform> p: Params;

const D4 = 2u * D8;
const WORDS = 4u * D8;                   // of two elements
const HEAD = D8 + 1u;                    // octets of a head, and one that begins with its scale
const ROWS = SUBGROUPS * SM;
const THREADS = SUBGROUPS * LANES;
const PART = 8u * OCTETS;                // columns of a lane
const ROW_HEADS = select(HEADS, KV_HEADS, OF_KEYS);
const COLUMN_HEADS = select(KV_HEADS, HEADS, OF_KEYS);
// Rows in workgroup memory, in octets and quads: one more keeps them off the same banks.
const LINE = D8 + 1u;
const TURNED_LINE = COLUMNS / 8u + 1u;
const SCORE_LINE = COLUMNS / 4u + 1u;
const WEIGHT_LINE = COLUMNS / 8u + 1u;

#for m in 0..2
  var<workgroup> tile_$m: array<vec4u, COLUMNS * LINE>;             // by columns
  var<workgroup> scores_$m: array<vec4f, ROWS * SCORE_LINE>;        // and results on their way out
  var<workgroup> scales_$m: array<vec4f, COLUMNS / 4u>;             // of the columns
#end
#for m in 0..RESULTS
  var<workgroup> turned_$m: array<vec4u, 8u * D8 * TURNED_LINE>;    // columns, by elements of the head
  var<workgroup> weights_$m: array<vec4u, ROWS * WEIGHT_LINE>;
#end
// Stats of the columns, where those are queries.
var<workgroup> column_lse: array<vec4f, COLUMNS / 4u>;
var<workgroup> column_sums: array<vec4f, COLUMNS / 4u>;

// Columns of one head, those past the end repeat the last one.
struct Columns { start: u32, end: u32, head: u32 }

fn column_pair(column: u32, columns: Columns) -> u32 {
  return (min(column, columns.end - 1u) - columns.start) * COLUMN_HEADS + columns.head;
}

#for m in 0..2
  // Octet n of a tile of columns; those past the tile repeat its last one.
  fn column_octet_$m(n: u32, first: u32, columns: Columns) -> vec4u {
    let at = min(n, COLUMNS * D8 - 1u);
    return columns_$m[column_pair(first + at / D8, columns) * HEAD + at % D8];
  }

  // Two elements of a column.
  fn column_word_$m(column: u32, columns: Columns, word: u32) -> u32 {
    return columns_$m[column_pair(column, columns) * HEAD + word / 4u][word % 4u];
  }

  fn put_column_$m(n: u32, octet: vec4u) {
    if (n < COLUMNS * D8) { tile_$m[n / D8 * LINE + n % D8] = octet; }
  }
#end

// Scales, and stats, of four columns.
fn put_facts(n: u32, first: u32, columns: Columns) {
  var scale_0 = vec4f();
  var scale_1 = vec4f();
  var lse = vec4f();
  var sums = vec4f();
  #for e in 0..4
    let pair_$e = column_pair(first + 4u * n + $eu, columns);
    scale_0[$e] = bitcast<f32>(columns_0[pair_$e * HEAD + D8].x);
    scale_1[$e] = bitcast<f32>(columns_1[pair_$e * HEAD + D8].x);
    if (OF_KEYS) {
      lse[$e] = stats[pair_$e].x;
      sums[$e] = stats[pair_$e].y;
    }
  #end
  scales_0[n] = scale_0;
  scales_1[n] = scale_1;
  column_lse[n] = lse;
  column_sums[n] = sums;
}

// What weights of this magnitude are taken times, given what those before were: 0 where there were none.
fn room_for(most: f32, up: f32) -> f32 {
  let fits = most * up < 32768.0 && (up > 0.0 || most == 0.0);
  return select(power_of_two(clamp(134 - i32(bitcast<u32>(most) >> 23u), -100, 100)), up, fits);
}

fn most_of(x: vec4f) -> f32 {
  return max(max(abs(x.x), abs(x.y)), max(abs(x.z), abs(x.w)));
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let sharers = HEADS / KV_HEADS;
  let row_start = select(p.q_start, p.k_start, OF_KEYS);
  let row_count = select(p.q_rows, p.k_rows, OF_KEYS);
  let column_start = select(p.k_start, p.q_start, OF_KEYS);
  let column_count = select(p.k_rows, p.q_rows, OF_KEYS);
  // The rows with most columns start first.
  let block = select(groups.x - 1u - group.x, group.x, OF_KEYS) * ROWS;
  let block_end = min(block + ROWS, row_count);
  let base = subgroup * SM;                   // its first row in the block
  let tile_row = base + lane % SM;            // the lane's row in the block
  let column0 = lane / SM * PART;             // and its first column of a step
  let row = min(block + tile_row, row_count - 1u);
  let row_pair = row * ROW_HEADS + group.y;
  // Factors of rows have whole matrices of them; a subgroup past them takes the last one.
  let rows_at = (min(block + base, (row_count - 1u) / SM * SM) * ROW_HEADS + group.y) * HEAD;
  let score_scale = bitcast<f32>(rows_0[row_pair * HEAD + D8].x) * p.scale;
  let gradient_scale = bitcast<f32>(rows_1[row_pair * HEAD + D8].x);
  #for m in 0..RESULTS
    var up_$m = 0.0;
    #for g in 0..ROUNDS
      #for i in 0..SCORES
        var sum_$m_$g_$i = Sums();
      #end
    #end
  #end
  let first_head = group.y * select(1u, sharers, OF_KEYS);
  for (var head = first_head; head < first_head + select(1u, sharers, OF_KEYS); head++) {
    let table = select(0u, p.rows, 2u * head >= HEADS);
    let last_end = ends[table + row_start + block_end - 1u] + 1u;
    let end = min(select(row_start + block_end, last_end, OF_KEYS), column_start + column_count);
    let first = max(select(ends[table + row_start + block], row_start + block, OF_KEYS), column_start);
    let columns = Columns(column_start, end, select(head / sharers, head, OF_KEYS));
    let row_ends = ends[table + row_start + row];
    let from_column = vec4u(select(row_ends, row_start + row, OF_KEYS));
    let to_column = vec4u(min(select(row_start + row, row_ends, OF_KEYS), end - 1u));
    var row_stats = vec2f();
    if (!OF_KEYS) { row_stats = stats[row_pair]; }
    if (first < end) {
      #for m in 0..2
        #for n in 0..LOADS
          put_column_$m(thread + $nu * THREADS, column_octet_$m(thread + $nu * THREADS, first, columns));
        #end
      #end
      if (thread < COLUMNS / 4u) { put_facts(thread, first, columns); }
    }
    workgroupBarrier();
    for (var column = first; column < end; column += COLUMNS) {
      // Load the next columns and these turned, under the products.
      #for m in 0..2
        #for n in 0..LOADS
          let next_$m_$n = column_octet_$m(thread + $nu * THREADS, column + COLUMNS, columns);
        #end
      #end
      #for n in 0..TURNED_LOADS
        let pack_$n = thread + $nu * THREADS;
        let word_$n = min(pack_$n / (COLUMNS / 8u), WORDS - 1u);
        let octet_$n = pack_$n % (COLUMNS / 8u);
        #for m in 0..RESULTS
          var even_$m_$n = vec4u();
          var odd_$m_$n = vec4u();
          #for e in 0..4
            even_$m_$n[$e] = column_word_$m(column + 8u * octet_$n + 2u * $eu, columns, word_$n);
            odd_$m_$n[$e] = column_word_$m(column + 8u * octet_$n + 2u * $eu + 1u, columns, word_$n);
          #end
        #end
      #end
      // Products of the factors.
      #for m in 0..2
        let row_$m_0 = subgroupMatrixLoad<Left, row_major>(&rows_$m, rows_at, ROW_HEADS * HEAD);
        #for j in 0..SCORES
          var x_$m_$j = subgroupMatrixMultiply<f32>(
            row_$m_0, subgroupMatrixLoad<Right, col_major>(&tile_$m, $ju * SN * LINE, LINE));
        #end
        #for e in 1..LEFTS
          let row_$m_$e = subgroupMatrixLoad<Left, row_major>(&rows_$m, rows_at + $eu * SK / 8u, ROW_HEADS * HEAD);
          #for j in 0..SCORES
            x_$m_$j = subgroupMatrixMultiplyAccumulate(
              row_$m_$e, subgroupMatrixLoad<Right, col_major>(&tile_$m, $ju * SN * LINE + $eu * SK / 8u, LINE), x_$m_$j);
          #end
        #end
        #for j in 0..SCORES
          subgroupMatrixStore<row_major>(&scores_$m, base * SCORE_LINE + $ju * SN / 4u, x_$m_$j, SCORE_LINE);
        #end
      #end
      workgroupBarrier();
      #for m in 0..2
        #for n in 0..LOADS
          put_column_$m(thread + $nu * THREADS, next_$m_$n);
        #end
      #end
      #for n in 0..TURNED_LOADS
        if (pack_$n < WORDS * (COLUMNS / 8u)) {
          #for m in 0..RESULTS
            turned_$m[2u * word_$n * TURNED_LINE + octet_$n] = turned_first(even_$m_$n, odd_$m_$n);
            turned_$m[(2u * word_$n + 1u) * TURNED_LINE + octet_$n] = turned_second(even_$m_$n, odd_$m_$n);
          #end
        }
      #end
      // Weights: dS = P (dP - sum of dO * O), with P from the saved lse; masked.
      var most_0 = 0.0;
      var most_1 = 0.0;
      #for i in 0..OCTETS
        #for h in 0..2
          let column_$i_$h = column0 + 8u * $iu + 4u * $hu;
          let quad_$i_$h = column_$i_$h / 4u;
          let at_$i_$h = vec4u(column + column_$i_$h) + vec4u(0u, 1u, 2u, 3u);
          let seen_$i_$h = (at_$i_$h >= from_column) & (at_$i_$h <= to_column);
          let score_$i_$h = capped(scores_0[tile_row * SCORE_LINE + quad_$i_$h] * (score_scale * scales_0[quad_$i_$h]));
          let dp_$i_$h = scores_1[tile_row * SCORE_LINE + quad_$i_$h] * (gradient_scale * scales_1[quad_$i_$h]);
          var lse_$i_$h = vec4f(row_stats.x);
          var row_sum_$i_$h = vec4f(row_stats.y);
          if (OF_KEYS) {
            lse_$i_$h = column_lse[quad_$i_$h];
            row_sum_$i_$h = column_sums[quad_$i_$h];
          }
          let weight_1_$i_$h = select(vec4f(), exp(score_$i_$h - lse_$i_$h), seen_$i_$h);
          let ds_$i_$h = before_cap(weight_1_$i_$h * (dp_$i_$h - row_sum_$i_$h), score_$i_$h);
          let scaled_0_$i_$h = select(vec4f(), ds_$i_$h, seen_$i_$h) * scales_0[quad_$i_$h];
          let scaled_1_$i_$h = weight_1_$i_$h * scales_1[quad_$i_$h];
          most_0 = max(most_0, most_of(scaled_0_$i_$h));
          most_1 = max(most_1, most_of(scaled_1_$i_$h));
        #end
      #end
      #for m in 0..RESULTS
        let most_of_all_$m = subgroupMax(most_$m);
        let next_up_$m = room_for(most_of_all_$m, up_$m);
        if (next_up_$m != up_$m) {
          let factor_$m = next_up_$m * reciprocal(up_$m);
          #for g in 0..ROUNDS
            #for i in 0..SCORES
              sum_$m_$g_$i = subgroupMatrixScalarMultiply(sum_$m_$g_$i, factor_$m);
            #end
          #end
          up_$m = next_up_$m;
        }
        #for i in 0..OCTETS
          weights_$m[tile_row * WEIGHT_LINE + column0 / 8u + $iu] =
            octet_of(scaled_$m_$i_0 * up_$m, scaled_$m_$i_1 * up_$m);
        #end
      #end
      workgroupBarrier();
      // Add weights x columns.
      for (var j = 0u; j < COLUMNS; j += SK) {
        #for m in 0..RESULTS
          let w_$m = subgroupMatrixLoad<Left, row_major>(&weights_$m, base * WEIGHT_LINE + j / 8u, WEIGHT_LINE);
          #for g in 0..ROUNDS
            #for i in 0..SCORES
              sum_$m_$g_$i = subgroupMatrixMultiplyAccumulate(
                w_$m,
                subgroupMatrixLoad<Right, col_major>(
                  &turned_$m, ($gu * SCORES + $iu) * SN * TURNED_LINE + j / 8u, TURNED_LINE),
                sum_$m_$g_$i,
              );
            #end
          #end
        #end
      }
      if (thread < COLUMNS / 4u) { put_facts(thread, column + COLUMNS, columns); }
    }
  }
  // Write the results.
  #for m in 0..RESULTS
    let factor_out_$m = reciprocal(up_$m) * select(1.0, p.scale, $m == 0);
    #for g in 0..ROUNDS
      workgroupBarrier();
      #for j in 0..SCORES
        subgroupMatrixStore<row_major>(&scores_0, base * SCORE_LINE + $ju * SN / 4u, sum_$m_$g_$j, SCORE_LINE);
      #end
      workgroupBarrier();
      for (var n = lane; n < SM * COLUMNS / 4u; n += LANES) {
        let mine = base + n / (COLUMNS / 4u);
        let quad = n % (COLUMNS / 4u);
        if (block + mine < row_count) {
          let at = ((block + mine) * ROW_HEADS + group.y) * D4 + $gu * (COLUMNS / 4u) + quad;
          var value = scores_0[mine * SCORE_LINE + quad] * factor_out_$m;
          if (RESUME) { value += load_X(result_$m[at]); }
          result_$m[at] = store_X(value);
        }
      }
    #end
  #end
}
