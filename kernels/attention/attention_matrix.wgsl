// Flash attention, forward, on matrix units: f16 factors, f32 sums.   FlashAttention-2 (arXiv 2307.08691), algorithm 1.

enable f16;
enable chromium_experimental_subgroup_matrix;
requires subgroup_id;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // offsets differ between subgroups, not within one

// A workgroup takes ROWS query rows of one head, SM for each subgroup, and goes over its keys, COLUMNS a step. Drivers have been
// seen to get less than this wrong, so matrices are loaded in one direction only (values are turned on their way into the
// tile), from octets, at constant strides, where they are used, and sums begin with a product.
//
// Scores leave the matrices through workgroup memory, since only whole matrices have an address: lane l of a subgroup weighs
// row l % SM of its rows, of which it has one part in PARTS. Sums stay in matrices, which cannot be scaled by rows; so a
// row's weights are relative to a running max that moves only when a score passes it by 2^SLACK, which it does for the first
// few keys and hardly again. A value's scale (attention_halves_matrix.wgsl) counts as part of its score there, and in the weights.
//
// Barriers, two a step: after one all scores are there and nobody reads the keys or the values of the step before; after
// the other the weights, these values and the next keys are there.

#needs soft_cap CAPPED turned_first turned_second octet_of
#needs Left Right Sums SM SN SK LANES    // of the matrix unit
#needs D8 HEADS KV_HEADS SUBGROUPS COLUMNS
#needs LEFTS SCORES ROUNDS               // matrices of a row of queries; of a row of scores; times that, of a row of o
#needs OCTETS                            // of scores that a lane weighs
#needs KEY_LOADS VALUE_LOADS             // octets of keys, and words of eight values, that a thread loads for a step
#needs RESUME                            // whether to go on from the o and lse of earlier keys

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
@group(0) @binding(0) var<storage, read> q: array<vec4u>;        // (q_rows or more, HEADS, HEAD)
@group(0) @binding(1) var<storage, read> k: array<vec4u>;        // (k_rows or more, KV_HEADS, HEAD)
@group(0) @binding(2) var<storage, read> v: array<vec4u>;        // (k_rows or more, KV_HEADS, HEAD)
@group(0) @binding(3) var<storage, read> first: array<u32>;      // (2, rows)
@group(0) @binding(4) var<storage, read_write> o: array<X>;      // (q_rows, HEADS, D4)
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;  // (q_rows, HEADS)
@group(0) @binding(6) var<uniform> p: Params;

const D4 = 2u * D8;
const WORDS = 4u * D8;                   // of two elements
const HEAD = D8 + 1u;                    // octets of a head, and one that begins with its scale
const ROWS = SUBGROUPS * SM;
const THREADS = SUBGROUPS * LANES;
const PART = 8u * OCTETS;                // columns of a lane
// Rows in workgroup memory, in octets and quads: one more keeps them off the same banks.
const KEY_LINE = D8 + 1u;
const VALUE_LINE = COLUMNS / 8u + 1u;
const SCORE_LINE = COLUMNS / 4u + 1u;
const WEIGHT_LINE = COLUMNS / 8u + 1u;

// Running max of a row that has seen no key.
const MASKED = -1e30;
// f16 holds 2^15.
const SLACK = 8.0;
const LOG2_E = 1.4426950408889634;

var<workgroup> key_tile: array<vec4u, COLUMNS * KEY_LINE>;          // by keys
var<workgroup> value_tile: array<vec4u, 8u * D8 * VALUE_LINE>;      // by elements of the head
var<workgroup> scores: array<vec4f, ROWS * SCORE_LINE>;             // and sums on their way in and out
var<workgroup> weights: array<vec4u, ROWS * WEIGHT_LINE>;
var<workgroup> key_scales: array<vec4f, COLUMNS / 4u>;
var<workgroup> value_scales: array<vec4f, COLUMNS / 4u>;
var<workgroup> factors: array<vec2f, ROWS>;                         // of the rows' sums, and of the o of earlier keys
var<workgroup> moves: u32;                                          // 1 if any row's running max moves

// Where the head of a key begins; keys past the end repeat the last one.
fn key_at(key: u32, key_end: u32, kv_head: u32) -> u32 {
  return ((min(key, key_end - 1u) - p.k_start) * KV_HEADS + kv_head) * HEAD;
}

// Word of a value: two of its elements.
fn value_word(key: u32, key_end: u32, kv_head: u32, word: u32) -> u32 {
  return v[key_at(key, key_end, kv_head) + word / 4u][word % 4u];
}

// Loads octet n of a tile of keys; those past the tile load its last one.
fn key_octet(n: u32, key: u32, key_end: u32, kv_head: u32) -> vec4u {
  let at = min(n, COLUMNS * D8 - 1u);
  return k[key_at(key + at / D8, key_end, kv_head) + at % D8];
}

fn put_key(n: u32, octet: vec4u) {
  if (n < COLUMNS * D8) { key_tile[n / D8 * KEY_LINE + n % D8] = octet; }
}

// Scales of four keys and of their values.
fn put_scales(n: u32, key: u32, key_end: u32, kv_head: u32) {
  var of_keys = vec4f();
  var of_values = vec4f();
  #for e in 0..4
    let at_$e = key_at(key + 4u * n + $eu, key_end, kv_head) + D8;
    of_keys[$e] = bitcast<f32>(k[at_$e].x);
    of_values[$e] = bitcast<f32>(v[at_$e].x);
  #end
  key_scales[n] = of_keys;
  value_scales[n] = of_values;
}

// Scores times LOG2_E, from the products of f16 factors and their scales.
fn log2_scores(products: vec4f, scales: vec4f) -> vec4f {
  if (CAPPED) { return soft_cap(products * scales, p.cap * LOG2_E); }
  return products * scales;
}

fn exponents(powers: vec4f) -> vec4f {
  return vec4f(vec4i(bitcast<vec4u>(powers) >> vec4u(23u)) - 127);
}

fn most_of(x: vec4f) -> f32 {
  return max(max(x.x, x.y), max(x.z, x.w));
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let head = group.y;
  let kv_head = head / (HEADS / KV_HEADS);
  let table = select(0u, p.rows, 2u * head >= HEADS);
  // The last rows have most keys: they start first.
  let start = (groups.x - 1u - group.x) * ROWS;
  let key_end = min(p.q_start + min(start + ROWS, p.q_rows), p.k_start + p.k_rows);
  let key_start = max(first[table + p.q_start + start], p.k_start);
  let base = subgroup * SM;                   // its first row in the block
  let tile_row = base + lane % SM;            // the lane's row in the block
  let column0 = lane / SM * PART;             // and its first column of a step
  let row = min(start + tile_row, p.q_rows - 1u);
  let from_key = vec4u(first[table + p.q_start + row]);
  let to_key = vec4u(min(p.q_start + row, key_end - 1u));
  // q has whole matrices of rows; a subgroup past them takes the last one.
  let q_at = (min(start + base, (p.q_rows - 1u) / SM * SM) * HEADS + head) * HEAD;
  let row_scale = bitcast<f32>(q[(row * HEADS + head) * HEAD + D8].x) * p.scale * LOG2_E;
  var running_max = MASKED;
  var sum = 0.0;
  #for g in 0..ROUNDS
    #for i in 0..SCORES
      var o_$g_$i = Sums();
    #end
  #end
  if (thread == 0u) { moves = 0u; }
  if (key_start < key_end) {
    if (thread < COLUMNS / 4u) { put_scales(thread, key_start, key_end, kv_head); }
    #for n in 0..KEY_LOADS
      put_key(thread + $nu * THREADS, key_octet(thread + $nu * THREADS, key_start, key_end, kv_head));
    #end
  }
  workgroupBarrier();

  for (var key = key_start; key < key_end; key += COLUMNS) {
    // Load these values and the next keys, under the products.
    #for n in 0..KEY_LOADS
      let key_octet_$n = key_octet(thread + $nu * THREADS, key + COLUMNS, key_end, kv_head);
    #end
    #for n in 0..VALUE_LOADS
      let pack_$n = thread + $nu * THREADS;
      let word_$n = min(pack_$n / (COLUMNS / 8u), WORDS - 1u);
      let octet_$n = pack_$n % (COLUMNS / 8u);
      var even_$n = vec4u();
      var odd_$n = vec4u();
      #for e in 0..4
        even_$n[$e] = value_word(key + 8u * octet_$n + 2u * $eu, key_end, kv_head, word_$n);
        odd_$n[$e] = value_word(key + 8u * octet_$n + 2u * $eu + 1u, key_end, kv_head, word_$n);
      #end
    #end
    // Scores.
    let q_0 = subgroupMatrixLoad<Left, row_major>(&q, q_at, HEADS * HEAD);
    #for j in 0..SCORES
      var x_$j = subgroupMatrixMultiply<f32>(
        q_0, subgroupMatrixLoad<Right, col_major>(&key_tile, $ju * SN * KEY_LINE, KEY_LINE));
    #end
    #for e in 1..LEFTS
      let q_$e = subgroupMatrixLoad<Left, row_major>(&q, q_at + $eu * SK / 8u, HEADS * HEAD);
      #for j in 0..SCORES
        x_$j = subgroupMatrixMultiplyAccumulate(
          q_$e, subgroupMatrixLoad<Right, col_major>(&key_tile, $ju * SN * KEY_LINE + $eu * SK / 8u, KEY_LINE), x_$j);
      #end
    #end
    #for j in 0..SCORES
      subgroupMatrixStore<row_major>(&scores, base * SCORE_LINE + $ju * SN / 4u, x_$j, SCORE_LINE);
    #end
    workgroupBarrier();
    #for n in 0..KEY_LOADS
      put_key(thread + $nu * THREADS, key_octet_$n);
    #end
    #for n in 0..VALUE_LOADS
      if (pack_$n < WORDS * (COLUMNS / 8u)) {
        value_tile[2u * word_$n * VALUE_LINE + octet_$n] = turned_first(even_$n, odd_$n);
        value_tile[(2u * word_$n + 1u) * VALUE_LINE + octet_$n] = turned_second(even_$n, odd_$n);
      }
    #end
    // The running max, and by what it rescales the sums so far.
    var step_max = MASKED;
    #for i in 0..OCTETS
      #for h in 0..2
        let column_$i_$h = column0 + 8u * $iu + 4u * $hu;
        let at_$i_$h = vec4u(key + column_$i_$h) + vec4u(0u, 1u, 2u, 3u);
        let seen_$i_$h = (at_$i_$h >= from_key) & (at_$i_$h <= to_key);
        let score_$i_$h = select(
          vec4f(MASKED),
          log2_scores(scores[tile_row * SCORE_LINE + column_$i_$h / 4u], row_scale * key_scales[column_$i_$h / 4u]),
          seen_$i_$h,
        );
        let down_$i_$h = value_scales[column_$i_$h / 4u];
        step_max = max(step_max, most_of(score_$i_$h + exponents(down_$i_$h)));
      #end
    #end
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
    #for i in 0..OCTETS
      #for h in 0..2
        let power_$i_$h = select(vec4f(), exp2(score_$i_$h - running_max), seen_$i_$h);
        sum += dot(power_$i_$h, vec4f(1.0));
      #end
      weights[tile_row * WEIGHT_LINE + column0 / 8u + $iu] = octet_of(power_$i_0 * down_$i_0, power_$i_1 * down_$i_1);
    #end
    if (column0 == 0u) { factors[tile_row] = vec2f(rescale, 0.0); }
    // Rescale o.
    if (workgroupUniformLoad(&moves) == 1u) {
      #for g in 0..ROUNDS
        #for j in 0..SCORES
          subgroupMatrixStore<row_major>(&scores, base * SCORE_LINE + $ju * SN / 4u, o_$g_$j, SCORE_LINE);
        #end
        workgroupBarrier();
        for (var n = lane; n < SM * COLUMNS / 4u; n += LANES) {
          let mine = base + n / (COLUMNS / 4u);
          scores[mine * SCORE_LINE + n % (COLUMNS / 4u)] *= factors[mine].x;
        }
        workgroupBarrier();
        #for j in 0..SCORES
          o_$g_$j = subgroupMatrixLoad<Sums, row_major>(&scores, base * SCORE_LINE + $ju * SN / 4u, SCORE_LINE);
        #end
      #end
    }
    // Add weights x V.
    for (var j = 0u; j < COLUMNS; j += SK) {
      let w = subgroupMatrixLoad<Left, row_major>(&weights, base * WEIGHT_LINE + j / 8u, WEIGHT_LINE);
      #for g in 0..ROUNDS
        #for i in 0..SCORES
          o_$g_$i = subgroupMatrixMultiplyAccumulate(
            w,
            subgroupMatrixLoad<Right, col_major>(&value_tile, ($gu * SCORES + $iu) * SN * VALUE_LINE + j / 8u, VALUE_LINE),
            o_$g_$i,
          );
        #end
      #end
    }
    if (thread == 0u) { moves = 0u; }
    if (thread < COLUMNS / 4u) { put_scales(thread, key + COLUMNS, key_end, kv_head); }
  }

  // Write o and lse, with those of earlier keys.
  for (var offset = SM; offset < LANES; offset *= 2u) { sum += subgroupShuffleXor(sum, offset); }
  // Nothing was summed if all keys that the row sees lie in other parts.
  let mine_log2 = running_max + log2(max(sum, 1e-30));
  var all_log2 = mine_log2;
  var before_share = 0.0;
  if (RESUME) {
    let before_log2 = lse[row * HEADS + head] * LOG2_E;
    let most = max(mine_log2, before_log2);
    all_log2 = most + log2(exp2(mine_log2 - most) + exp2(before_log2 - most));
    before_share = exp2(before_log2 - all_log2);
  }
  workgroupBarrier();
  if (column0 == 0u) {
    factors[tile_row] = vec2f(exp2(mine_log2 - all_log2) / max(sum, 1e-30), before_share);
    if (start + tile_row < p.q_rows) { lse[row * HEADS + head] = all_log2 / LOG2_E; }
  }
  #for g in 0..ROUNDS
    #for j in 0..SCORES
      subgroupMatrixStore<row_major>(&scores, base * SCORE_LINE + $ju * SN / 4u, o_$g_$j, SCORE_LINE);
    #end
    workgroupBarrier();
    for (var n = lane; n < SM * COLUMNS / 4u; n += LANES) {
      let mine = base + n / (COLUMNS / 4u);
      let quad = n % (COLUMNS / 4u);
      if (start + mine < p.q_rows) {
        let at = ((start + mine) * HEADS + head) * D4 + $gu * (COLUMNS / 4u) + quad;
        var value = scores[mine * SCORE_LINE + quad] * factors[mine].x;
        if (RESUME) { value += load_X(o[at]) * factors[mine].y; }
        o[at] = store_X(value);
      }
    }
    workgroupBarrier();
  #end
}
