// C = alpha A B^T + beta C for few columns: lanes share operand B through subgroup broadcasts.
//
// A subgroup makes a tile of 32 rows by 8 GROUPS columns: lane l owns rows 4 l .. 4 l + 3 and loads A for them; what it
// loads of B it hands to the other lanes.
//
// Grid: x = 32 rows, y = 8 GROUPS columns, z = parts of the depth.   Precision: sums in f32.

#needs a_rows a_fetch share_b store
#needs GROUPS

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) tile: vec3u, @builtin(subgroup_invocation_id) subgroup_lane: u32) {
  let lane = subgroup_lane % 8u;
  let iq = 8u * tile.x + lane;
  let jq = 2u * GROUPS * tile.y;
  #for g in 0..GROUPS
    #for e in 0..4
      var left$g_$e = vec4f();
      var right$g_$e = vec4f();
    #end
  #end
  for (var rq = tile.z * p.span; rq < min((tile.z + 1u) * p.span, p.depth); rq++) {
    let rows = a_rows(a_fetch(iq, rq));
    #for g in 0..GROUPS
      let columns$g = share_b(jq + 2u * $gu, lane, rq);
      #for e in 0..4
        left$g_$e += columns$g.left * rows[$e];
        right$g_$e += columns$g.right * rows[$e];
      #end
    #end
  }
  #for g in 0..GROUPS
    #for e in 0..4
      store(tile.z, 4u * iq + $eu, jq + 2u * $gu, left$g_$e);
      store(tile.z, 4u * iq + $eu, jq + 2u * $gu + 1u, right$g_$e);
    #end
  #end
}
