// y = alpha x W^T + beta y for up to M rows of x, lanes over the outputs: lane l makes outputs 4 l .. 4 l + 3 of 32 and
// is the only one to load their weights; what it loads of x it hands to the other lanes. No workgroup memory.
//
// Grid: x = 32 outputs.   Precision: sums in f32; the scale of a block multiplies its sum.

#needs b_begin find_part b_row x_quad b_chunk b_quad b_scale inner_sum store
#needs QUADS CHUNKS PER_CHUNK

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let nq = group.x * 8u + lane;
  find_part(nq);
  b_begin(lane);
  let last = p.depth / QUADS - 1u;
  #for n in 0..4
    let row_$n = b_row(4u * nq + $nu);
  #end
  #for m in 0..M
    var sum_$m = vec4f();
  #end
  for (var q = 0u; q < p.depth; q += 8u) {
    #for m in 0..M
      let x_$m = x_quad($mu, q + lane);
    #end
    #for c in 0..CHUNKS
      let c_$c = min(q / QUADS + $cu, last);
      #for n in 0..4
        let chunk_$c_$n = b_chunk(row_$n, c_$c);
      #end
      #for m in 0..M
        var part_$c_$m = vec4f();
      #end
      #for e in 0..PER_CHUNK
        #for n in 0..4
          let b_$c_$e_$n = b_quad(chunk_$c_$n, $eu);
        #end
        #for m in 0..M
          let x_$m_$c_$e = subgroupBroadcast(x_$m, $cu * QUADS + $eu);
          #for n in 0..4
            part_$c_$m[$n] += dot(x_$m_$c_$e, b_$c_$e_$n);
          #end
        #end
      #end
      let scale_$c = vec4f(
        #for n in 0..4
          b_scale(row_$n, c_$c),
        #end
      );
      #for m in 0..M
        sum_$m += scale_$c * part_$c_$m;
      #end
    #end
  }
  #for m in 0..M
    store($mu, nq, sum_$m + inner_sum($mu, nq, 0u, 1u));
  #end
}
