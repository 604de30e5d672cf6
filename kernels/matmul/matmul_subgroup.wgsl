// C = alpha A B^T + beta C, lanes sharing operand A through subgroup broadcasts.
//
// A subgroup makes a tile of 16 rows by 32 columns: lane l owns columns 4 l .. 4 l + 3 and loads B for them; what it
// loads of A it hands to the other lanes. No workgroup memory, no barriers.
//
// Grid: x = 32 columns, y = 16 rows.   Precision: sums in f32.

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) tile: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let jq = tile.x * 8u + lane;
  #for g in 0..4
  #for e in 0..4
  var sum$g_$e = vec4f();
  #end
  #end
  for (var rq = 0u; rq < p.depth; rq++) {
    let rows = share_a(tile.y, lane % 8u, rq);
    let block = b_block(jq, rq);
    #for g in 0..4
    #for e in 0..4
    sum$g_$e += block * rows.g$g[$e];
    #end
    #end
  }
  #for g in 0..4
  #for e in 0..4
  store(16u * tile.y + 4u * $gu + $eu, jq, sum$g_$e);
  #end
  #end
}
