// Attention of few queries over one span of a key cache, without barriers: a workgroup is 8 lanes of one subgroup. Each
// step takes 8 keys: lane t loads key row t, and all queries that share it multiply it; of the value rows lane l loads
// quads l, l + 8, ... So each element of the cache is loaded once. The queries' quads lie in the lanes' registers.
// Dao et al. 2023, "Flash-Decoding for long-context inference".
//
// Grid: x = splits, y = kv heads by groups of QUERIES queries, z = sequences.

#needs span_of query_of pair_of key_at sees has_query write_quad k_scale v_scale capped_one
#needs MASKED ROUNDS QUERIES
#needs D4    // quads of a head

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let s = span_of(group);
  #for i in 0..QUERIES
    let query_$i = query_of(s, $iu);
    let seen_$i = positions[query_$i.x];
    var running_max_$i = MASKED;
    var sum_$i = 0.0;
    #for j in 0..ROUNDS
      let in_$i_$j = 8u * $ju + lane < D4;
      let q_$i_$j = select(vec4f(), load_X(q[pair_of(query_$i) * D4 + min(8u * $ju + lane, D4 - 1u)]), in_$i_$j) * p.scale;
      var o_$i_$j = vec4f();
    #end
  #end
  for (var key = s.first_key; key < s.end_key; key += 8u) {
    let at = key_at(s, min(key + lane, s.end_key - 1u));
    // Scores of 8 keys, one a lane.
    #for i in 0..QUERIES
      var x_$i = 0.0;
    #end
    #for j in 0..ROUNDS
      #for t in 0..8
        if (8u * $ju + $tu < D4) {
          let k_$j_$t = load_C(k[at + 8u * $ju + $tu]);
          #for i in 0..QUERIES
            x_$i += dot(k_$j_$t, subgroupBroadcast(q_$i_$j, $tu));
          #end
        }
      #end
    #end
    // Scale; mask; running max; rescale; weights.
    let scale_k = k_scale(at);
    let scale_v = v_scale(at);
    let inside = key + lane < s.end_key;
    #for i in 0..QUERIES
      x_$i = select(MASKED, capped_one(x_$i * scale_k), inside && sees(seen_$i, key + lane));
      let previous_max_$i = running_max_$i;
      running_max_$i = max(running_max_$i, subgroupMax(x_$i));
      let rescale_$i = exp(previous_max_$i - running_max_$i);
      // All keys so far may be hidden: then their maximum is the score that hides them.
      x_$i = select(exp(x_$i - running_max_$i), 0.0, x_$i == MASKED);
      sum_$i = sum_$i * rescale_$i + subgroupAdd(x_$i);
      #for j in 0..ROUNDS
        o_$i_$j *= rescale_$i;
      #end
      x_$i *= scale_v;
    #end
    // Add weights x V; the weights have the scales of the values.
    for (var t = 0u; t < min(8u, s.end_key - key); t++) {
      let row = key_at(s, key + t);
      #for i in 0..QUERIES
        let p_$i = subgroupShuffle(x_$i, t);
      #end
      #for j in 0..ROUNDS
        let v_$j = load_C(v[row + min(8u * $ju + lane, D4 - 1u)]);
        #for i in 0..QUERIES
          o_$i_$j += p_$i * v_$j;
        #end
      #end
    }
  }
  #for i in 0..QUERIES
    if (has_query(s, $iu)) {
      #for j in 0..ROUNDS
        if (in_$i_$j) {
          write_quad(group, query_$i, 8u * $ju + lane, o_$i_$j, running_max_$i, sum_$i);
        }
      #end
    }
  #end
}
