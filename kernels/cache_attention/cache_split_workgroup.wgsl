// Attention of few queries over one span of a key cache. The span goes by blocks of BLOCK keys: first tiles of key rows
// pass through workgroup memory, where all queries that share them multiply them; then the block's scores become
// weights; then each thread sums one quad of the value rows of every PARTS-th key, which it loads itself.
// Dao et al. 2023, "Flash-Decoding for long-context inference".
//
// Grid: x = splits, y = kv heads by groups of QUERIES queries, z = sequences.

#needs span_of pair_of query_of key_at sees has_query write_quad k_scale v_scale capped_one
#needs MASKED QUERIES
#needs D4           // quads of a head
#needs TILE_KEYS    // keys of a tile

const THREADS = 128u;
const BLOCK = 128u;                    // keys whose scores are kept
const SHARE = 16u;                     // threads that weigh one query's scores
const PARTS = THREADS / D4;    // threads that share a quad of the values
const STRIDE = D4 + 1u;        // quads from key to key in the tile, odd or even: neighbours hit other banks

var<workgroup> tile: array<C, TILE_KEYS * STRIDE>;
var<workgroup> held_q: array<vec4f, QUERIES * D4>;
var<workgroup> scores: array<f32, QUERIES * BLOCK>;
var<workgroup> shares: array<f32, QUERIES * SHARE>;
var<workgroup> run: array<vec3f, QUERIES>;          // running max, sum, and what rescales earlier blocks
var<workgroup> sums: array<vec4f, THREADS>;

// Turns the scores of a block's keys into weights and brings `run` up to date. Every thread must call it.
fn weigh(thread: u32, keys: u32) {
  let i = thread / SHARE;
  let works = i < QUERIES;
  if (works) {
    var most = MASKED;
    for (var key = thread % SHARE; key < keys; key += SHARE) {
      most = max(most, scores[i * BLOCK + key]);
    }
    shares[thread] = most;
  }
  workgroupBarrier();
  var most = MASKED;
  if (works) {
    most = run[i].x;
    for (var x = 0u; x < SHARE; x++) {
      most = max(most, shares[i * SHARE + x]);
    }
  }
  workgroupBarrier();
  if (works) {
    var sum = 0.0;
    for (var key = thread % SHARE; key < keys; key += SHARE) {
      let score = scores[i * BLOCK + key];
      // All keys so far may be hidden: then their maximum is the score that hides them.
      let weight = select(exp(score - most), 0.0, score == MASKED);
      scores[i * BLOCK + key] = weight;
      sum += weight;
    }
    shares[thread] = sum;
  }
  workgroupBarrier();
  if (works && thread % SHARE == 0u) {
    let rescale = exp(run[i].x - most);
    var sum = run[i].y * rescale;
    for (var x = 0u; x < SHARE; x++) {
      sum += shares[thread + x];
    }
    run[i] = vec3f(most, sum, rescale);
  }
  workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let s = span_of(group);
  for (var i = thread; i < QUERIES * D4; i += THREADS) {
    held_q[i] = load_X(q[pair_of(query_of(s, i / D4)) * D4 + i % D4]) * p.scale;
  }
  if (thread < QUERIES) {
    run[thread] = vec3f(MASKED, 0.0, 0.0);
  }
  let quad = thread % D4;
  let sums_values = thread < PARTS * D4;
  #for i in 0..QUERIES
    var o_$i = vec4f();
  #end
  for (var block = s.first_key; block < s.end_key; block += BLOCK) {
    let keys = min(BLOCK, s.end_key - block);
    // Scores, masked, by tiles of keys.
    for (var first = 0u; first < keys; first += TILE_KEYS) {
      workgroupBarrier();
      for (var i = thread; i < TILE_KEYS * D4; i += THREADS) {
        let key = min(block + first + i / D4, s.end_key - 1u);
        tile[i / D4 * STRIDE + i % D4] = k[key_at(s, key) + i % D4];
      }
      workgroupBarrier();
      for (var i = thread; i < TILE_KEYS * QUERIES; i += THREADS) {
        let key = first + i % TILE_KEYS;
        let query = i / TILE_KEYS;
        var score = 0.0;
        for (var e = 0u; e < D4; e++) {
          score += dot(load_C(tile[i % TILE_KEYS * STRIDE + e]), held_q[query * D4 + e]);
        }
        let is_seen = sees(positions[query_of(s, query).x], block + key);
        let at = key_at(s, min(block + key, s.end_key - 1u));
        scores[query * BLOCK + key] = select(MASKED, capped_one(score * k_scale(at)), is_seen);
      }
    }
    // Running max, rescale, weights.
    workgroupBarrier();
    weigh(thread, keys);
    // Add weights x V.
    if (sums_values) {
      #for i in 0..QUERIES
        o_$i *= run[$iu].z;
      #end
      for (var key = thread / D4; key < keys; key += PARTS) {
        let at = key_at(s, block + key);
        let value = load_C(v[at + quad]) * v_scale(at);
        #for i in 0..QUERIES
          o_$i += scores[$iu * BLOCK + key] * value;
        #end
      }
    }
  }
  // Put the threads of a quad together.
  #for i in 0..QUERIES
    workgroupBarrier();
    sums[thread] = o_$i;
    workgroupBarrier();
    if (has_query(s, $iu) && thread < D4) {
      var sum_$i = vec4f();
      for (var x = thread; x < PARTS * D4; x += D4) {
        sum_$i += sums[x];
      }
      write_quad(group, query_of(s, $iu), thread, sum_$i, run[$iu].x, run[$iu].y);
    }
  #end
}
