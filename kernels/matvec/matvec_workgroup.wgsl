// y = alpha x W^T + beta y for up to M rows of x, lanes along the depth: a team of LANES threads makes four outputs. In a
// turn each lane has a unit of CHUNKS chunks of the depth, of all four rows of W. The loads of a unit are under way
// together, while the unit before is multiplied; the first while x is made and brought to workgroup memory. There quad e
// of all units lies together, so that neighbours read and write different banks: straight from the cache they would
// read a unit apart.
//
// Grid: x = 4 THREADS / LANES outputs.   Precision: sums in f32; the scale of a unit multiplies its sum.

#needs b_begin find_part b_row b_chunk b_scale b_quad b_next x_quad x_share x_fold x_factor inner_sum store
#needs QUADS THREADS M
#needs LANES       // a power of two
#needs CHUNKS      // chunks of a unit, which share a scale: 1 or 2
#needs TURNS       // turns whose x is in the tile
#needs PER_STEP    // quads of a chunk that are multiplied at once
#needs TILE        // quads: of x, later of sums

const UNIT = CHUNKS * QUADS;      // quads
const UNITS = TURNS * LANES;      // of a tile
const LINE = UNITS + 1u;
const ADDERS = min(LANES, 8u);    // lanes that add up the sums of a team

var<workgroup> tile: array<vec4f, TILE>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let lane = thread % LANES;
  let nq = group.x * (THREADS / LANES) + thread / LANES;
  find_part(nq);
  b_begin(thread);
  let last = p.depth / QUADS - 1u;
  let turns = (p.depth + UNIT * LANES - 1u) / (UNIT * LANES);
  #for n in 0..4
    let row_$n = b_row(4u * nq + $nu);
    #for c in 0..CHUNKS
      var next_$n_$c = b_chunk(row_$n, min(lane * CHUNKS + $cu, last));
    #end
    var next_scale_$n = b_scale(row_$n, min(lane * CHUNKS, last));
  #end
  #for m in 0..M
    var sum_$m = vec4f();
    let inner_$m = inner_sum($mu, nq, lane, LANES);
  #end
  for (var turn = 0u; turn < turns; turn++) {
    if (turn % TURNS == 0u) {
      // Load a tile of x: past the end it is 0, and what is loaded of W does not matter.
      workgroupBarrier();
      for (var q = thread; q < UNITS * UNIT; q += THREADS) {
        #for m in 0..M
          tile[($mu * UNIT + q % UNIT) * LINE + q / UNIT] = x_quad($mu, turn * LANES * UNIT + q);
        #end
      }
      x_share(thread);
      workgroupBarrier();
    }
    // Load the next unit.
    #for n in 0..4
      #for c in 0..CHUNKS
        var chunk_$n_$c = next_$n_$c;
      #end
      let scale_$n = next_scale_$n;
    #end
    if (turn + 1u < turns) {
      let first = ((turn + 1u) * LANES + lane) * CHUNKS;
      #for n in 0..4
        #for c in 0..CHUNKS
          next_$n_$c = b_chunk(row_$n, min(first + $cu, last));
        #end
        next_scale_$n = b_scale(row_$n, min(first, last));
      #end
    }
    // Multiply. The chunk, and the quads of it, at hand are always the first: none is found by an index.
    let at = turn % TURNS * LANES + lane;
    #for m in 0..M
      var part_$m = vec4f();
    #end
    for (var c = 0u; c < CHUNKS; c++) {
      for (var e = 0u; e < QUADS; e += PER_STEP) {
        #for t in 0..PER_STEP
          #for n in 0..4
            let b_$t_$n = b_quad(chunk_$n_0, $tu);
          #end
          #for m in 0..M
            let x_$m_$t = tile[($mu * UNIT + c * QUADS + e + $tu) * LINE + at];
            #for n in 0..4
              part_$m[$n] = add_products(x_$m_$t, b_$t_$n, part_$m[$n]);
            #end
          #end
        #end
        #for n in 0..4
          chunk_$n_0 = b_next(chunk_$n_0);
        #end
      }
      #for n in 0..4
        #for d in 1..CHUNKS
          chunk_$n_0 = chunk_$n_$d;
        #end
      #end
    }
    #for m in 0..M
      sum_$m += part_$m * vec4f(scale_0, scale_1, scale_2, scale_3);
    #end
  }
  // Add up the lanes of a team; write.
  x_fold(thread);
  workgroupBarrier();
  #for m in 0..M
    sum_$m = sum_$m * x_factor($mu) + inner_$m;
    tile[$mu * THREADS + thread] = sum_$m;
  #end
  workgroupBarrier();
  if (lane < ADDERS) {
    #for m in 0..M
      for (var other = lane + ADDERS; other < LANES; other += ADDERS) {
        sum_$m += tile[$mu * THREADS + thread - lane + other];
      }
      tile[$mu * THREADS + thread] = sum_$m;
    #end
  }
  workgroupBarrier();
  if (lane == 0u) {
    #for m in 0..M
      for (var other = 1u; other < ADDERS; other++) {
        sum_$m += tile[$mu * THREADS + thread + other];
      }
      store($mu, nq, sum_$m);
    #end
  }
}

fn add_products(x: vec4f, b: vec4f, sum: f32) -> f32 {
  return fma(x.w, b.w, fma(x.z, b.z, fma(x.y, b.y, fma(x.x, b.x, sum))));
}
