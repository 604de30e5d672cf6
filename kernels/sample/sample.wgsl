// The next token of each sequence from its logits:
//   x = logits, those of tokens already seen divided by `penalty` if positive and multiplied if not (Keskar et al. 2019,
//   CTRL, section 4.1); x / temperature; then only the top_k likeliest; of these the likeliest that make up top_p of
//   their probability (Holtzman et al. 2020, section 3.1); of these the ones at least min_p times as likely as the
//   likeliest (Nguyen et al. 2024, section 3). Of equally likely tokens all or none are kept.
// What is kept is drawn from by its cumulative probability in the order of the ids; GREEDY takes the likeliest, the
// first of equals. A random number belongs to a seed, a sequence and a position: the same wherever it is drawn.
//
// The token goes where the next step reads it, and to `drawn`, which the host reads later. Logits of which one is no
// number, or none is finite, give the token NONE.
//
// Grid: one workgroup per sequence. Precision: probabilities and their sums in f32, in a fixed order.

#needs workgroup_max random_words
#needs LANES GREEDY
#needs TURNS    // of the draw: LANES to their power covers the quads

const NONE = 0xffffffffu;
const LOWEST = -3.4e38;   // in place of tokens that do not take part

struct Params {
  quads: u32,             // of a row of logits
  vocab_size: u32,        // below 2^24
  first_drawn: u32,       // where this step's tokens go in `drawn`
  seed: u32,
  penalty: f32,           // 1: none
  temperature: f32,
  top_k: u32,             // 0: all
  top_p: f32,             // 1: all
  min_p: f32,             // 0: all
}

@group(0) @binding(0) var<storage, read_write> logits: array<vec4f>;      // (rows, quads): become x
@group(0) @binding(1) var<storage, read_write> tokens: array<u32>;        // (rows)
@group(0) @binding(2) var<storage, read_write> positions: array<u32>;     // (rows) of `tokens`
@group(0) @binding(3) var<storage, read_write> seen: array<u32>;          // (rows, words): a bit for each token
@group(0) @binding(4) var<storage, read_write> drawn: array<u32>;         // (steps, rows)
@group(0) @binding(5) var<uniform> p: Params;

var<workgroup> lane_pairs: array<mat2x4f, LANES>;
var<workgroup> eighth_pairs: array<mat2x4f, 8>;
var<workgroup> lane_weights: array<f32, LANES>;
var<workgroup> range: vec2u;       // quads that the draw is narrowed to
var<workgroup> rest: f32;          // weight that is still to pass in them

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let position = positions[row] + 1u;
  let lane_most = prepare(row, lane);
  let most = workgroup_max(lane, lane_most.x);
  let is_bad = workgroup_max(lane, lane_most.y) > 0.0 || most <= LOWEST;
  var token = 0u;
  if (GREEDY) {
    token = likeliest(row, lane, most);
  } else {
    var least = 0u;
    if (p.top_k > 0u) {
      least = rank_that_keeps(row, lane, f32(p.top_k), most, least, true);
    }
    if (p.top_p < 1.0) {
      let total = sum_of_weights(row, lane, most, least);
      least = rank_that_keeps(row, lane, p.top_p * total, most, least, false);
    }
    // Rounding, or a top_p of 0, must not leave nothing.
    least = min(least, rank_of(vec4f(most)).x);
    let word = random_words(vec2u(p.seed, row), vec2u(position, 0u)).x;
    token = draw(row, lane, most, least, f32(word >> 8u) * 0x1p-24);
  }
  if (lane == 0u) {
    if (is_bad) { token = NONE; }
    tokens[row] = token;
    positions[row] = position;
    drawn[p.first_drawn + row] = token;
    if (token < p.vocab_size) { seen[seen_word(row, token)] |= 1u << (token % 32u); }
  }
}

// Writes x over a row's logits. Returns this lane's maximum, and 1 if it met what is no number.
fn prepare(row: u32, lane: u32) -> vec2f {
  var most = LOWEST;
  var is_bad = 0.0;
  for (var quad = lane; quad < p.quads; quad += LANES) {
    let ids = vec4u(4u * quad) + vec4u(0u, 1u, 2u, 3u);
    let inside = ids < vec4u(p.vocab_size);
    var x = logits[row * p.quads + quad];
    let bits = bitcast<vec4u>(x);
    // NaN of either sign, and plus infinity.
    let is_wrong = ((bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u)) | (bits == vec4u(0x7f800000u));
    if (any(is_wrong & inside)) { is_bad = 1.0; }
    if (p.penalty != 1.0) {
      let word = vec4u(seen[seen_word(row, min(4u * quad, p.vocab_size - 1u))]);
      let was_seen = ((word >> (ids % vec4u(32u))) & vec4u(1u)) == vec4u(1u);
      x = select(x, select(x * p.penalty, x / p.penalty, x > vec4f()), was_seen);
    }
    x = select(vec4f(LOWEST), max(x / p.temperature, vec4f(LOWEST)), inside);
    logits[row * p.quads + quad] = x;
    most = max(most, max(max(x.x, x.y), max(x.z, x.w)));
  }
  return vec2f(most, is_bad);
}

fn seen_word(row: u32, id: u32) -> u32 {
  return row * ((p.vocab_size + 31u) / 32u) + id / 32u;
}

// The first id whose x is the maximum.
fn likeliest(row: u32, lane: u32, most: f32) -> u32 {
  var first = -16777216.0;
  for (var quad = lane; quad < p.quads; quad += LANES) {
    let x = logits[row * p.quads + quad];
    #for e in 0..4
      if (x[$e] == most) { first = max(first, -f32(4u * quad + $eu)); }
    #end
  }
  return u32(-workgroup_max(lane, first));
}

// The order of floats as that of whole numbers.
fn rank_of(x: vec4f) -> vec4u {
  let bits = bitcast<vec4u>(x);
  return select(bits | vec4u(0x80000000u), ~bits, bits >= vec4u(0x80000000u));
}

// Probabilities of a quad relative to the likeliest's; 0 below the rank `least`.
fn weights_of(x: vec4f, most: f32, least: u32) -> vec4f {
  let takes_part = (rank_of(x) >= vec4u(least)) & (x > vec4f(LOWEST));
  return select(vec4f(), exp(x - vec4f(most)), takes_part);
}

fn sum_of_weights(row: u32, lane: u32, most: f32, least: u32) -> f32 {
  var sum = vec4f();
  for (var quad = lane; quad < p.quads; quad += LANES) {
    sum += weights_of(logits[row * p.quads + quad], most, least);
  }
  let total = sum_pairs(lane, mat2x4f(sum, vec4f()))[0];
  return (total.x + total.y) + (total.z + total.w);
}

// The largest rank with `wanted` tokens, or their weight, from it on; 0 if there is none. Only tokens from the rank
// `least` on count. Three bits a turn: the sums from seven ranks on are made together.
fn rank_that_keeps(row: u32, lane: u32, wanted: f32, most: f32, least: u32, counts: bool) -> u32 {
  var rank = 0u;
  for (var turn = 0u; turn < 11u; turn++) {
    // The first turn has two bits: its last four ranks would wrap, and are left out.
    let shift = 30u - 3u * turn;
    let low = vec4u(rank) + (vec4u(1u, 2u, 3u, 4u) << vec4u(shift));
    let high = vec4u(rank) + (vec4u(5u, 6u, 7u, 7u) << vec4u(shift));
    var sums = mat2x4f();
    for (var quad = lane; quad < p.quads; quad += LANES) {
      let x = logits[row * p.quads + quad];
      let ranks = rank_of(x);
      var weights = weights_of(x, most, least);
      if (counts) { weights = select(vec4f(), vec4f(1.0), x > vec4f(LOWEST)); }
      #for e in 0..4
        sums[0] += select(vec4f(), vec4f(weights[$e]), vec4u(ranks[$e]) >= low);
        sums[1] += select(vec4f(), vec4f(weights[$e]), vec4u(ranks[$e]) >= high);
      #end
    }
    sums = sum_pairs(lane, sums);
    let enough_low = select(vec4u(), vec4u(1u), sums[0] >= vec4f(wanted));
    let enough_high = select(vec4u(), vec4u(1u), sums[1] >= vec4f(wanted));
    var digit = enough_low.x + enough_low.y + enough_low.z;
    if (turn > 0u) { digit += enough_low.w + enough_high.x + enough_high.y + enough_high.z; }
    rank += digit << shift;
  }
  return rank;
}

// Sums over the workgroup, as in shared/reduce.wgsl. Every lane must call it, and all get the result.
fn sum_pairs(lane: u32, value: mat2x4f) -> mat2x4f {
  workgroupBarrier();
  lane_pairs[lane] = value;
  workgroupBarrier();
  if (lane < 8u) {
    var sum = mat2x4f();
    for (var i = lane; i < LANES; i += 8u) {
      sum += lane_pairs[i];
    }
    eighth_pairs[lane] = sum;
  }
  workgroupBarrier();
  return ((eighth_pairs[0] + eighth_pairs[1]) + (eighth_pairs[2] + eighth_pairs[3])) +
    ((eighth_pairs[4] + eighth_pairs[5]) + (eighth_pairs[6] + eighth_pairs[7]));
}

// The first id whose cumulative weight passes `share` of the whole. The lanes cut the row among them and one finds the
// cut that passes; then they cut that.
fn draw(row: u32, lane: u32, most: f32, least: u32, share: f32) -> u32 {
  // Here lanes read what others wrote in `prepare`.
  storageBarrier();
  var begin = 0u;
  var end = p.quads;
  for (var turn = 0u; turn < TURNS; turn++) {
    let span = (end - begin + LANES - 1u) / LANES;
    var sum = 0.0;
    for (var quad = begin + lane * span; quad < min(end, begin + (lane + 1u) * span); quad++) {
      let w = kept_weights(row, quad, most, least);
      sum += (w.x + w.y) + (w.z + w.w);
    }
    lane_weights[lane] = sum;
    workgroupBarrier();
    if (lane == 0u) {
      if (turn == 0u) {
        var total = 0.0;
        for (var i = 0u; i < LANES; i++) { total += lane_weights[i]; }
        rest = share * total;
      }
      var passed = 0.0;
      var last = vec2f(0.0, 0.0);    // the last lane with any weight, and what passed before it
      for (var i = 0u; i < LANES; i++) {
        let weight = lane_weights[i];
        if (weight > 0.0 && passed <= rest) { last = vec2f(f32(i), passed); }
        passed += weight;
      }
      rest -= last.y;
      range.x = begin + u32(last.x) * span;
      range.y = min(end, range.x + span);
    }
    workgroupBarrier();
    begin = range.x;
    end = range.y;
  }
  let w = kept_weights(row, begin, most, least);
  var passed = 0.0;
  var e = 0u;
  #for i in 0..4
    if (w[$i] > 0.0 && passed <= rest) { e = $iu; }
    passed += w[$i];
  #end
  return 4u * begin + e;
}

fn kept_weights(row: u32, quad: u32, most: f32, least: u32) -> vec4f {
  let w = weights_of(logits[row * p.quads + quad], most, least);
  return select(vec4f(), w, w >= vec4f(p.min_p));
}
