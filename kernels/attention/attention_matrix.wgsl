// Flash attention, forward, on matrix units: f16 factors, f32 sums.

enable f16;
enable chromium_experimental_subgroup_matrix;
requires subgroup_id;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // offsets differ between subgroups, not within one

// A workgroup takes ROWS query rows of one head, SM for each subgroup, and goes over its keys, COLUMNS a step. Scores leave
// the matrices through workgroup memory, since only whole matrices have an address: lane l of a subgroup weighs row
// l % SM of its rows, of which it has one part in PARTS. Sums stay in matrices, which cannot be scaled by rows; so a
// row's weights are relative to a running max that moves only when a score passes it by 2^SLACK, which it does for the first
// few keys and hardly again.

#needs range_of soft_cap CAPPED
#needs Left Right Sums SM SN SK LANES    // of the matrix unit
#needs D4 SUBGROUPS
#needs LEFTS SUMS                        // matrices of a row of queries, and of a row of results
#needs RESUME    // whether to go on from the o and lse of earlier keys
#needs SCALED    // whether q, k and v are scaled: f16 is in range as it is

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
@group(0) @binding(6) var<storage, read> largest: array<u32>;    // bits of the largest finite magnitude in q, k and v
@group(0) @binding(7) var<uniform> p: Params;

const D = 4u * D4;
const ROWS = SUBGROUPS * SM;
const COLUMNS = ROWS / 2u;
const THREADS = SUBGROUPS * LANES;
const PARTS = LANES / SM;
const PART = COLUMNS / PARTS;
// Rows of each in workgroup memory; 16 bytes more keep them off the same banks.
const LINE = D + 8u;
const SCORE_LINE = COLUMNS + 4u;
const WEIGHT_LINE = COLUMNS + 8u;

// Running max of a row that has seen no key.
const MASKED = -1e30;
// f16 holds 2^15.
const SLACK = 8.0;
const LOG2_E = 1.4426950408889634;

var<workgroup> tile: array<f16, ROWS * LINE>;           // COLUMNS keys, then as many values; first ROWS queries
var<workgroup> scores: array<f32, ROWS * SCORE_LINE>;   // and sums on their way in and out
var<workgroup> weights: array<f16, ROWS * WEIGHT_LINE>;
var<workgroup> factors: array<f32, ROWS>;               // of the rows' sums
var<workgroup> moves: u32;                             // 1 if any row's running max moves

// A score times LOG2_E, from the product of the scaled factors.
fn log2_score(product: f32, score_scale: f32) -> f32 {
  if (CAPPED) { return soft_cap(vec4f(product * score_scale), p.cap * LOG2_E).x; }
  return product * score_scale;
}

fn put(row: u32, quad: u32, value: vec4f) {
  #for e in 0..4
    tile[row * LINE + 4u * quad + $eu] = f16(value[$e]);
  #end
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let q_range = range_of(SCALED, largest[0]);
  let k_range = range_of(SCALED, largest[1]);
  let v_range = range_of(SCALED, largest[2]);
  let score_scale = q_range.down * k_range.down * p.scale * LOG2_E;
  let head = group.y;
  let kv_head = head / (p.heads / p.kv_heads);
  let table = select(0u, p.rows, 2u * head >= p.heads);
  // The last rows have most keys: they start first.
  let start = (groups.x - 1u - group.x) * ROWS;
  let key_end = min(p.q_start + min(start + ROWS, p.q_rows), p.k_start + p.k_rows);
  let base = subgroup * SM;                   // its first row in the block
  let tile_row = base + lane % SM;                 // the lane's row in the block
  let column0 = lane / SM * PART;             // and its first column of a step
  let row = min(start + tile_row, p.q_rows - 1u);
  let from_key = first[table + p.q_start + row];
  let to_key = min(p.q_start + row, key_end - 1u);

  // Load the queries to registers, through the tile.
  for (var n = thread; n < ROWS * D4; n += THREADS) {
    let at = (min(start + n / D4, p.q_rows - 1u) * p.heads + head) * D4 + n % D4;
    put(n / D4, n % D4, load_X(q[at]) * q_range.up);
  }
  workgroupBarrier();
  #for e in 0..LEFTS
    let q_$e = subgroupMatrixLoad<Left, row_major>(&tile, base * LINE + $eu * SK, LINE);
  #end
  #for i in 0..SUMS
    var o_$i = Sums();
  #end
  var running_max = MASKED;
  var sum = 0.0;
  if (RESUME) {
    let before = lse[row * p.heads + head] * LOG2_E;
    if (before > 0.5 * MASKED) {
      running_max = before;
      sum = select(0.0, 1.0, column0 == 0u);
    }
    #for i in 0..SUMS
      workgroupBarrier();
      for (var n = lane; n < SM * SN / 4u; n += LANES) {
        let at = (min(start + base + n / (SN / 4u), p.q_rows - 1u) * p.heads + head) * D4 + $iu * (SN / 4u) + n % (SN / 4u);
        let value = load_X(o[at]) * v_range.up;
        let to = (base + n / (SN / 4u)) * SCORE_LINE + n % (SN / 4u) * 4u;
        #for e in 0..4
          scores[to + $eu] = value[$e];
        #end
      }
      workgroupBarrier();
      o_$i = subgroupMatrixLoad<Sums, row_major>(&scores, base * SCORE_LINE, SCORE_LINE);
    #end
  }

  for (var key = max(first[table + p.q_start + start], p.k_start); key < key_end; key += COLUMNS) {
    // Load a tile of keys and values.
    workgroupBarrier();
    for (var n = thread; n < COLUMNS * D4; n += THREADS) {
      let at = ((min(key + n / D4, key_end - 1u) - p.k_start) * p.kv_heads + kv_head) * D4 + n % D4;
      put(n / D4, n % D4, load_X(k[at]) * k_range.up);
      put(COLUMNS + n / D4, n % D4, load_X(v[at]) * v_range.up);
    }
    if (thread == 0u) { moves = 0u; }
    workgroupBarrier();
    // Scores.
    for (var j = 0u; j < COLUMNS; j += SN) {
      // A declaration without a value would keep the last one in a loop: Dawn sets it once.
      var x = Sums();
      #for e in 0..LEFTS
        x = subgroupMatrixMultiplyAccumulate(
          q_$e, subgroupMatrixLoad<Right, col_major>(&tile, j * LINE + $eu * SK, LINE), x);
      #end
      subgroupMatrixStore<row_major>(&scores, base * SCORE_LINE + j, x, SCORE_LINE);
    }
    workgroupBarrier();
    // The running max, and by what it rescales the sums so far.
    var step_max = MASKED;
    for (var n = column0; n < column0 + PART; n++) {
      let is_seen = key + n >= from_key && key + n <= to_key;
      step_max = max(step_max, select(MASKED, log2_score(scores[tile_row * SCORE_LINE + n], score_scale), is_seen));
    }
    for (var offset = SM; offset < LANES; offset *= 2u) { step_max = max(step_max, subgroupShuffleXor(step_max, offset)); }
    var rescale = 1.0;
    if (running_max <= 0.5 * MASKED) {
      running_max = step_max;
    } else if (step_max > running_max + SLACK) {
      rescale = exp2(running_max - step_max);
      running_max = step_max;
      moves = 1u;
    }
    // Weights, masked.
    sum *= rescale;
    for (var n = column0; n < column0 + PART; n++) {
      let is_seen = key + n >= from_key && key + n <= to_key;
      let weight = select(0.0, exp2(log2_score(scores[tile_row * SCORE_LINE + n], score_scale) - running_max), is_seen);
      sum += weight;
      weights[tile_row * WEIGHT_LINE + n] = f16(weight);
    }
    // Rescale o.
    if (workgroupUniformLoad(&moves) == 1u) {
      if (column0 == 0u) { factors[tile_row] = rescale; }
      #for i in 0..SUMS
        workgroupBarrier();
        subgroupMatrixStore<row_major>(&scores, base * SCORE_LINE, o_$i, SCORE_LINE);
        workgroupBarrier();
        for (var n = lane; n < SM * SN; n += LANES) { scores[(base + n / SN) * SCORE_LINE + n % SN] *= factors[base + n / SN]; }
        workgroupBarrier();
        o_$i = subgroupMatrixLoad<Sums, row_major>(&scores, base * SCORE_LINE, SCORE_LINE);
      #end
    }
    // Add weights x V.
    workgroupBarrier();
    for (var j = 0u; j < COLUMNS; j += SK) {
      let w = subgroupMatrixLoad<Left, row_major>(&weights, base * WEIGHT_LINE + j, WEIGHT_LINE);
      #for i in 0..SUMS
        o_$i = subgroupMatrixMultiplyAccumulate(
          w, subgroupMatrixLoad<Right, row_major>(&tile, (COLUMNS + j) * LINE + $iu * SN, LINE), o_$i);
      #end
    }
  }

  // Write o and lse.
  for (var offset = SM; offset < LANES; offset *= 2u) { sum += subgroupShuffleXor(sum, offset); }
  // Nothing was summed if all keys that the row sees lie in offset parts.
  sum = max(sum, 1e-30);
  workgroupBarrier();
  if (column0 == 0u) {
    factors[tile_row] = v_range.down / sum;
    if (start + tile_row < p.q_rows) { lse[row * p.heads + head] = (running_max + log2(sum)) / LOG2_E; }
  }
  #for i in 0..SUMS
    workgroupBarrier();
    subgroupMatrixStore<row_major>(&scores, base * SCORE_LINE, o_$i, SCORE_LINE);
    workgroupBarrier();
    for (var n = lane; n < SM * SN / 4u; n += LANES) {
      let mine = base + n / (SN / 4u);
      let at = mine * SCORE_LINE + n % (SN / 4u) * 4u;
      if (start + mine < p.q_rows) {
        o[((start + mine) * p.heads + head) * D4 + $iu * (SN / 4u) + n % (SN / 4u)] =
          store_X(vec4f(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]) * factors[mine]);
      }
    }
  #end
}
