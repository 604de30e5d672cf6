// Gradients of the keys and values, without barriers: lane l of a subgroup holds R key rows (l, l + LANES, ..) of one kv
// head, their values and the gradients of both. It goes over the query heads of that kv head, one query a step: the lanes
// share out its quads and those of its dO to load, and all get all of them by broadcast. Always in the same order, so
// always the same sum.

#needs capped_one before_cap_one
#needs QUADS
#needs LANES     // lanes of the workgroup: those of one subgroup
#needs R         // key rows of a lane
#needs PARTS     // a head has PARTS * QUADS quads; lane l loads quads l, l + PARTS, .. of a row
#needs RESUME    // whether to add to the dk and dv of earlier queries

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one table of first and of last
  q_start: u32,  // first row of the bound part of q, d_o and stats
  q_rows: u32,
  k_start: u32,  // first row of the bound part of k, v, dk and dv
  k_rows: u32,
  scale: f32,
  cap: f32,      // soft cap of the scores
}
@group(0) @binding(0) var<storage, read> q: array<X>;            // (q_rows, heads, D4)
@group(0) @binding(1) var<storage, read> k: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(2) var<storage, read> v: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(3) var<storage, read> d_o: array<X>;          // (q_rows, heads, D4)
@group(0) @binding(4) var<storage, read> stats: array<vec2f>;    // (q_rows, heads): lse, sum of dO * O
@group(0) @binding(5) var<storage, read> last: array<u32>;       // (2, rows)
@group(0) @binding(6) var<storage, read_write> dk: array<X>;     // (k_rows, kv_heads, D4)
@group(0) @binding(7) var<storage, read_write> dv: array<X>;     // (k_rows, kv_heads, D4)
@group(0) @binding(8) var<uniform> p: Params;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let part = min(lane, PARTS - 1u);
  let kv_head = group.y;
  let sharers = p.heads / p.kv_heads;
  let block = group.x * LANES * R;
  let block_end = min(block + LANES * R, p.k_rows);
  #for r in 0..R
    let row_$r = min(block + $ru * LANES + lane, p.k_rows - 1u);
    #for i in 0..QUADS
      #for s in 0..PARTS
        var k_$r_$i_$s = vec4f();
        var v_$r_$i_$s = vec4f();
        var dk_$r_$i_$s = vec4f();
        var dv_$r_$i_$s = vec4f();
      #end
    #end
  #end
  // One place that loads k and v for all rows and parts: places that load are what takes long to compile.
  for (var n = 0u; n < R * PARTS; n++) {
    let pair = min(block + n / PARTS * LANES + lane, p.k_rows - 1u) * p.kv_heads + kv_head;
    let at = pair * PARTS * QUADS + n % PARTS;
    #for i in 0..QUADS
      let k_$i = load_X(k[at + $iu * PARTS]) * p.scale;
      let v_$i = load_X(v[at + $iu * PARTS]);
      #for r in 0..R
        #for s in 0..PARTS
          k_$r_$i_$s = select(k_$r_$i_$s, k_$i, n == $ru * PARTS + $su);
          v_$r_$i_$s = select(v_$r_$i_$s, v_$i, n == $ru * PARTS + $su);
        #end
      #end
    #end
  }
  for (var head = kv_head * sharers; head < (kv_head + 1u) * sharers; head++) {
    let table = select(0u, p.rows, 2u * head >= p.heads) + p.k_start;
    let query_end = min(last[table + block_end - 1u] + 1u, p.q_start + p.q_rows);
    #for r in 0..R
      let from_$r = p.k_start + row_$r;
      let to_$r = min(last[table + row_$r], query_end - 1u);
    #end
    for (var query = max(p.k_start + block, p.q_start); query < query_end; query++) {
      let pair = (query - p.q_start) * p.heads + head;
      let at = pair * PARTS * QUADS + part;
      let row_stats = stats[pair];
      // Scores (x) and the gradient of their probability (d).
      #for r in 0..R
        var x_$r = vec4f();
        var d_$r = vec4f();
      #end
      #for i in 0..QUADS
        let q_$i = load_X(q[at + $iu * PARTS]);
        let g_$i = load_X(d_o[at + $iu * PARTS]);
        #for s in 0..PARTS
          let q_$i_$s = subgroupBroadcast(q_$i, $su);
          let g_$i_$s = subgroupBroadcast(g_$i, $su);
          #for r in 0..R
            x_$r += k_$r_$i_$s * q_$i_$s;
            d_$r += v_$r_$i_$s * g_$i_$s;
          #end
        #end
      #end
      // P from the saved lse, and dS = P (dP - sum of dO * O); masked.
      #for r in 0..R
        let seen_$r = query >= from_$r && query <= to_$r;
        let score_$r = capped_one(dot(x_$r, vec4f(1.0)));
        let p_$r = select(0.0, exp(score_$r - row_stats.x), seen_$r);
        let ds_$r = before_cap_one(p_$r * (dot(d_$r, vec4f(1.0)) - row_stats.y), score_$r);
      #end
      // Add dS x Q to dk and P x dO to dv.
      #for i in 0..QUADS
        #for s in 0..PARTS
          let q_again_$i_$s = subgroupBroadcast(q_$i, $su);
          let g_again_$i_$s = subgroupBroadcast(g_$i, $su);
          #for r in 0..R
            dk_$r_$i_$s += ds_$r * q_again_$i_$s;
            dv_$r_$i_$s += p_$r * g_again_$i_$s;
          #end
        #end
      #end
    }
  }
  // Write dk and dv.
  for (var n = 0u; n < R * PARTS; n++) {
    let row = block + n / PARTS * LANES + lane;
    if (row >= block_end) { break; }
    let at = (row * p.kv_heads + kv_head) * PARTS * QUADS + n % PARTS;
    #for i in 0..QUADS
      var dk_$i = vec4f();
      var dv_$i = vec4f();
      #for r in 0..R
        #for s in 0..PARTS
          dk_$i = select(dk_$i, dk_$r_$i_$s, n == $ru * PARTS + $su);
          dv_$i = select(dv_$i, dv_$r_$i_$s, n == $ru * PARTS + $su);
        #end
      #end
      dk_$i *= p.scale;
      if (RESUME) {
        dk_$i += load_X(dk[at + $iu * PARTS]);
        dv_$i += load_X(dv[at + $iu * PARTS]);
      }
      dk[at + $iu * PARTS] = store_X(dk_$i);
      dv[at + $iu * PARTS] = store_X(dv_$i);
    #end
  }
}
