// y = alpha x W^T + beta y for up to M rows of x, lanes along the depth: a team of LANES threads makes four outputs, and
// neighbours load neighbouring chunks of their weights. x passes through workgroup memory, where quad e of all chunks
// lies together, so that the lanes of a team read it without a stride.
//
// Grid: x = 4 THREADS / LANES outputs.   Precision: sums in f32; the scale of a block multiplies its sum.

#needs b_begin b_row x_quad b_chunk b_scale b_quad store
#needs QUADS THREADS M
#needs LANES       // a power of two
#needs PER_TURN    // quads of a chunk

const TILE = 1024u;                 // quads: of x, later of sums; at least M THREADS

var<workgroup> tile: array<vec4f, TILE>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  b_begin(thread);
  let lane = thread % LANES;
  let nq = group.x * (THREADS / LANES) + thread / LANES;
  let width = TILE / M;             // quads of a row in the tile
  let chunks = width / QUADS;
  #for n in 0..4
    let row_$n = b_row(4u * nq + $nu);
  #end
  #for m in 0..M
    var sum_$m = vec4f();
  #end
  for (var first = 0u; first < p.depth; first += width) {
    // Load a tile of x.
    workgroupBarrier();
    for (var i = thread; i < TILE; i += THREADS) {
      let q = i % width;
      tile[i - q + (q % QUADS) * chunks + q / QUADS] = x_quad(i / width, first + q);
    }
    workgroupBarrier();
    // Load weights by chunks and multiply.
    for (var c = lane; c < min(width, p.depth - first) / QUADS; c += LANES) {
      let at = first / QUADS + c;
      #for n in 0..4
        let chunk_$n = b_chunk(row_$n, at);
        let scale_$n = b_scale(row_$n, at);
      #end
      #for m in 0..M
        var part_$m = vec4f();
      #end
      // Two quads a turn: all at once would be half a minute of compiling for some drivers.
      for (var e = 0u; e < QUADS; e += PER_TURN) {
        #for t in 0..PER_TURN
          #for n in 0..4
            let b_$t_$n = b_quad(chunk_$n, e + $tu);
          #end
          #for m in 0..M
            let x_$m_$t = tile[$mu * width + (e + $tu) * chunks + c];
            #for n in 0..4
              part_$m[$n] += dot(x_$m_$t, b_$t_$n);
            #end
          #end
        #end
      }
      #for m in 0..M
        sum_$m += part_$m * vec4f(scale_0, scale_1, scale_2, scale_3);
      #end
    }
  }
  // Add up the lanes of a team; write.
  workgroupBarrier();
  #for m in 0..M
    tile[$mu * THREADS + thread] = sum_$m;
  #end
  for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
    workgroupBarrier();
    if (lane < stride) {
      #for m in 0..M
        tile[$mu * THREADS + thread] += tile[$mu * THREADS + thread + stride];
      #end
    }
  }
  if (lane == 0u) {
    #for m in 0..M
      store($mu, nq, tile[$mu * THREADS + thread]);
    #end
  }
}
