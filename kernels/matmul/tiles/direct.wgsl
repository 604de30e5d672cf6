// C = alpha A B^T + beta C without workgroup memory: each thread loads what it multiplies, four rows by four columns at
// four depths, and neighbours find it in the first cache. For GPUs whose caches are as fast, and for few rows.
//
// Grid: x * y = tiles of 4 THREAD_ROWS x 4 THREAD_COLS, z = parts of the depth.   Precision: sums in f32.

#needs tile_of product_begin depth_of b_begin QuadB b_fetch_quad b_value a_quad a_block b_block store
#needs THREAD_ROWS THREAD_COLS

const THREADS = THREAD_ROWS * THREAD_COLS;
const STEP = 1u;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  b_begin(thread);
  let tile = tile_of(group, groups);
  product_begin(tile);
  let span = depth_of(tile);
  let iq = THREAD_ROWS * tile.x + thread / THREAD_COLS;
  let jq = THREAD_COLS * tile.y + thread % THREAD_COLS;
  #for e in 0..4
    var sum_$e = vec4f();
    var b_$e = QuadB();
  #end
  for (var rq = span.x; rq < span.y; rq++) {
    #for e in 0..4
      let a_$e = a_quad(iq, $eu, rq);
      b_fetch_quad(&b_$e, jq, $eu, rq);
    #end
    let a = a_block(mat4x4f(load_A(a_0), load_A(a_1), load_A(a_2), load_A(a_3)));
    let b = b_block(mat4x4f(b_value(b_0), b_value(b_1), b_value(b_2), b_value(b_3)));
    #for d in 0..4
      #for e in 0..4
        sum_$e = fma(vec4f(a[$d][$e]), b[$d], sum_$e);
      #end
    #end
  }
  #for e in 0..4
    store(tile.z, 4u * iq + $eu, jq, sum_$e);
  #end
}
