// Gradient of the queries, without barriers: lane l of a subgroup holds R query rows (l, l + LANES, ..) of one head,
// their dO and dQ. Each step takes one key, loaded as the forward kernel does it, and computes its probabilities again
// from the log of their sum.

#needs capped_one before_cap_one
#needs QUADS
#needs LANES     // lanes of the workgroup: those of one subgroup
#needs R         // query rows of a lane
#needs PARTS     // a head has PARTS * QUADS quads; lane l loads quads l, l + PARTS, .. of a row
#needs RESUME    // whether to add to the dq of earlier keys

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one table of first
  q_start: u32,  // first row of the bound part of q, d_o, stats and dq
  q_rows: u32,
  k_start: u32,  // first row of the bound part of k and v
  k_rows: u32,
  scale: f32,
  cap: f32,      // soft cap of the scores
}
@group(0) @binding(0) var<storage, read> q: array<X>;            // (q_rows, heads, D4)
@group(0) @binding(1) var<storage, read> k: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(2) var<storage, read> v: array<X>;            // (k_rows, kv_heads, D4)
@group(0) @binding(3) var<storage, read> d_o: array<X>;          // (q_rows, heads, D4)
@group(0) @binding(4) var<storage, read> stats: array<vec2f>;    // (q_rows, heads): lse, sum of dO * O
@group(0) @binding(5) var<storage, read> first: array<u32>;      // (2, rows)
@group(0) @binding(6) var<storage, read_write> dq: array<X>;     // (q_rows, heads, D4)
@group(0) @binding(7) var<uniform> p: Params;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let part = min(lane, PARTS - 1u);
  let head = group.y;
  let kv_head = head / (p.heads / p.kv_heads);
  let table = select(0u, p.rows, 2u * head >= p.heads);
  // The last rows have most keys: they start first.
  let block = (groups.x - 1u - group.x) * LANES * R;
  let block_end = min(block + LANES * R, p.q_rows);
  let key_end = min(p.q_start + block_end, p.k_start + p.k_rows);
  #for r in 0..R
    let row_$r = min(block + $ru * LANES + lane, p.q_rows - 1u);
    let from_$r = first[table + p.q_start + row_$r];
    let to_$r = min(p.q_start + row_$r, key_end - 1u);
    let stats_$r = stats[row_$r * p.heads + head];
    #for i in 0..QUADS
      #for s in 0..PARTS
        var q_$r_$i_$s = vec4f();
        var g_$r_$i_$s = vec4f();
        var dq_$r_$i_$s = vec4f();
      #end
    #end
  #end
  // One place that loads q and dO for all rows and parts: places that load are what takes long to compile.
  for (var n = 0u; n < R * PARTS; n++) {
    let pair = min(block + n / PARTS * LANES + lane, p.q_rows - 1u) * p.heads + head;
    let at = pair * PARTS * QUADS + n % PARTS;
    #for i in 0..QUADS
      let q_$i = load_X(q[at + $iu * PARTS]) * p.scale;
      let g_$i = load_X(d_o[at + $iu * PARTS]);
      #for r in 0..R
        #for s in 0..PARTS
          q_$r_$i_$s = select(q_$r_$i_$s, q_$i, n == $ru * PARTS + $su);
          g_$r_$i_$s = select(g_$r_$i_$s, g_$i, n == $ru * PARTS + $su);
        #end
      #end
    #end
  }
  for (var key = max(first[table + p.q_start + block], p.k_start); key < key_end; key++) {
    let at = ((key - p.k_start) * p.kv_heads + kv_head) * PARTS * QUADS + part;
    // Scores (x) and the gradient of their probability (d).
    #for r in 0..R
      var x_$r = vec4f();
      var d_$r = vec4f();
    #end
    #for i in 0..QUADS
      let k_$i = load_X(k[at + $iu * PARTS]);
      let v_$i = load_X(v[at + $iu * PARTS]);
      #for s in 0..PARTS
        let k_$i_$s = subgroupBroadcast(k_$i, $su);
        let v_$i_$s = subgroupBroadcast(v_$i, $su);
        #for r in 0..R
          x_$r += q_$r_$i_$s * k_$i_$s;
          d_$r += g_$r_$i_$s * v_$i_$s;
        #end
      #end
    #end
    // dS = P (dP - sum of dO * O), with P from the saved lse; masked.
    #for r in 0..R
      let seen_$r = key >= from_$r && key <= to_$r;
      let score_$r = capped_one(dot(x_$r, vec4f(1.0)));
      let weight_$r = exp(score_$r - stats_$r.x) * (dot(d_$r, vec4f(1.0)) - stats_$r.y);
      let ds_$r = select(0.0, before_cap_one(weight_$r, score_$r), seen_$r);
    #end
    // Add dS x K.
    #for i in 0..QUADS
      #for s in 0..PARTS
        let again_$i_$s = subgroupBroadcast(k_$i, $su);
        #for r in 0..R
          dq_$r_$i_$s += ds_$r * again_$i_$s;
        #end
      #end
    #end
  }
  // Write dq.
  for (var n = 0u; n < R * PARTS; n++) {
    let row = block + n / PARTS * LANES + lane;
    if (row >= block_end) { break; }
    let at = (row * p.heads + head) * PARTS * QUADS + n % PARTS;
    #for i in 0..QUADS
      var dq_$i = vec4f();
      #for r in 0..R
        #for s in 0..PARTS
          dq_$i = select(dq_$i, dq_$r_$i_$s, n == $ru * PARTS + $su);
        #end
      #end
      dq_$i *= p.scale;
      if (RESUME) { dq_$i += load_X(dq[at + $iu * PARTS]); }
      dq[at + $iu * PARTS] = store_X(dq_$i);
    #end
  }
}
