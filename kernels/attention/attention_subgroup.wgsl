// Flash attention, forward, without barriers: a workgroup is one subgroup, of which lane l holds R query rows (l,
// l + LANES, ..) of one head in registers. Each step takes STEP keys: the lanes share out the quads of a row to load,
// and all get all of them by broadcast.

#needs capped_one
#needs QUADS
#needs LANES     // lanes of the workgroup: those of one subgroup
#needs R         // query rows of a lane
#needs PARTS     // a head has PARTS * QUADS quads; lane l loads quads l, l + PARTS, .. of a row
#needs STEP      // keys of a step
#needs RESUME    // whether to go on from the o and lse of earlier keys

struct Params {
  heads: u32,
  kv_heads: u32,
  rows: u32,     // of the batch: length of one set of first
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
@group(0) @binding(6) var<uniform> p: Params;

// Scores of keys that a row may not see. Its own key comes last, so whatever weight these got by then is rescaled to 0.
const MASKED = -1e30;

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
    var running_max_$r = MASKED;
    var sum_$r = 0.0;
    #for i in 0..QUADS
      #for s in 0..PARTS
        var q_$r_$i_$s = vec4f();
        var o_$r_$i_$s = vec4f();
      #end
    #end
  #end
  // One place that loads q for all rows and parts: places that load are what takes long to compile.
  for (var n = 0u; n < R * PARTS; n++) {
    let pair = min(block + n / PARTS * LANES + lane, p.q_rows - 1u) * p.heads + head;
    let at = pair * PARTS * QUADS + n % PARTS;
    #for i in 0..QUADS
      let q_$i = load_X(q[at + $iu * PARTS]) * p.scale;
      #for r in 0..R
        #for s in 0..PARTS
          q_$r_$i_$s = select(q_$r_$i_$s, q_$i, n == $ru * PARTS + $su);
        #end
      #end
    #end
    if (RESUME) {
      let before = lse[pair];
      #for r in 0..R
        running_max_$r = select(running_max_$r, before, n / PARTS == $ru);
        sum_$r = 1.0;
      #end
      #for i in 0..QUADS
        let o_$i = load_X(o[at + $iu * PARTS]);
        #for r in 0..R
          #for s in 0..PARTS
            o_$r_$i_$s = select(o_$r_$i_$s, o_$i, n == $ru * PARTS + $su);
          #end
        #end
      #end
    }
  }
  for (var key = max(first[table + p.q_start + block], p.k_start); key < key_end; key += STEP) {
    // Scores.
    #for t in 0..STEP
      let at_$t = ((min(key + $tu, key_end - 1u) - p.k_start) * p.kv_heads + kv_head) * PARTS * QUADS + part;
      #for r in 0..R
        var x_$r_$t = 0.0;
      #end
      #for i in 0..QUADS
        let k_$t_$i = load_X(k[at_$t + $iu * PARTS]);
        #for s in 0..PARTS
          let k_$t_$i_$s = subgroupBroadcast(k_$t_$i, $su);
          #for r in 0..R
            x_$r_$t += dot(q_$r_$i_$s, k_$t_$i_$s);
          #end
        #end
      #end
    #end
    // Mask; running max; rescale; weights.
    #for r in 0..R
      let previous_max_$r = running_max_$r;
      #for t in 0..STEP
        x_$r_$t = select(MASKED, capped_one(x_$r_$t), key + $tu >= from_$r && key + $tu <= to_$r);
        running_max_$r = max(running_max_$r, x_$r_$t);
      #end
      let rescale_$r = exp(previous_max_$r - running_max_$r);
      sum_$r *= rescale_$r;
      #for t in 0..STEP
        x_$r_$t = exp(x_$r_$t - running_max_$r);
        sum_$r += x_$r_$t;
      #end
    #end
    // Add weights x V.
    #for i in 0..QUADS
      #for t in 0..STEP
        let v_$t_$i = load_X(v[at_$t + $iu * PARTS]);
      #end
      #for s in 0..PARTS
        #for r in 0..R
          o_$r_$i_$s *= rescale_$r;
        #end
        #for t in 0..STEP
          let v_$t_$i_$s = subgroupBroadcast(v_$t_$i, $su);
          #for r in 0..R
            o_$r_$i_$s += x_$r_$t * v_$t_$i_$s;
          #end
        #end
      #end
    #end
  }
  #for r in 0..R
    // Nothing was summed if all keys that the row sees lie in other parts.
    let inverse_sum_$r = 1.0 / max(sum_$r, 1e-30);
    let log_sum_$r = running_max_$r + log(max(sum_$r, 1e-30));
  #end
  // Write o and lse.
  for (var n = 0u; n < R * PARTS; n++) {
    let row = block + n / PARTS * LANES + lane;
    if (row >= block_end) { break; }
    let pair = row * p.heads + head;
    var log_sum = log_sum_0;
    #for r in 1..R
      log_sum = select(log_sum, log_sum_$r, n / PARTS >= $ru);
    #end
    lse[pair] = log_sum;
    #for i in 0..QUADS
      var o_$i = vec4f();
      #for r in 0..R
        #for s in 0..PARTS
          o_$i = select(o_$i, o_$r_$i_$s * inverse_sum_$r, n == $ru * PARTS + $su);
        #end
      #end
      o[pair * PARTS * QUADS + n % PARTS + $iu * PARTS] = store_X(o_$i);
    #end
  }
}
