// C = alpha A B^T + beta C, lanes sharing operand A through subgroup broadcasts.
//
// A subgroup makes a tile of 8 GROUPS rows by 32 columns: lane l owns columns 4 l .. 4 l + 3 and loads B for them; what
// it loads of A it hands to the other lanes. No workgroup memory, no barriers.
//
// Grid: x * y = tiles of 8 GROUPS rows times tiles of 32 columns, z = parts of the depth.   Precision: sums in f32.

#needs tile_of product_begin depth_of accumulate store share_a
#needs GROUPS

struct Sums {
  #for g in 0..GROUPS
    #for e in 0..4
      low$g_$e: vec4f,
      high$g_$e: vec4f,
    #end
  #end
}

@compute @workgroup_size(8)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let tile = tile_of(group, groups);
  product_begin(tile);
  let span = depth_of(tile);
  let jq = tile.y * 8u + lane;
  var sums = Sums();
  accumulate(&sums, tile.x, jq, lane % 8u, span.x, span.y);
  #for g in 0..GROUPS
    let row$g = 8u * (tile.x * GROUPS + $gu);
    #for e in 0..4
      store(tile.z, row$g + $eu, jq, sums.low$g_$e);
      store(tile.z, row$g + 4u + $eu, jq, sums.high$g_$e);
    #end
  #end
}

// Adds the products at one quad of depth: `block` has the lane's four columns at depth d as its column d.
fn add_block(sums: ptr<function, Sums>, tile_row: u32, lane: u32, rq: u32, block: mat4x4f) {
  #for g in 0..GROUPS
    let rows$g = share_a(8u * (tile_row * GROUPS + $gu), lane, rq);
    #for e in 0..4
      (*sums).low$g_$e += block * rows$g.low[$e];
      (*sums).high$g_$e += block * rows$g.high[$e];
    #end
  #end
}
