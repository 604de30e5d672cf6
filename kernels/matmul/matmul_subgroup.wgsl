// C = alpha A B^T + beta C, lanes sharing operand A through subgroup broadcasts.
//
// A subgroup makes a tile of 8 GROUPS rows by 32 columns: lane l owns columns 4 l .. 4 l + 3 and loads B for them; what
// it loads of A it hands to the other lanes. No workgroup memory, no barriers. Tiles one below the other run one after
// the other, so that they find B in the cache.
//
// Grid: x = 8 GROUPS rows, y = 32 columns, z = parts of the depth.   Precision: sums in f32.

struct Sums {
  #for g in 0..GROUPS
  #for e in 0..4
  low$g_$e: vec4f,
  high$g_$e: vec4f,
  #end
  #end
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) tile: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let jq = tile.y * 8u + lane;
  var sums = Sums();
  accumulate(&sums, tile.x, jq, lane % 8u, tile.z * p.span, min((tile.z + 1u) * p.span, p.depth));
  // A loop, for each place that loads or stores costs a driver on the processor time to compile.
  for (var g = 0u; g < GROUPS; g++) {
    #for e in 0..4
    var low$e = sums.low0_$e;
    var high$e = sums.high0_$e;
    #end
    #for h in 1..GROUPS
    #for e in 0..4
    low$e = select(low$e, sums.low$h_$e, g == $hu);
    high$e = select(high$e, sums.high$h_$e, g == $hu);
    #end
    #end
    let row = 8u * (tile.x * GROUPS + g);
    #for e in 0..4
    store(tile.z, row + $eu, jq, low$e);
    store(tile.z, row + 4u + $eu, jq, high$e);
    #end
  }
}

override GROUPS: u32;

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
