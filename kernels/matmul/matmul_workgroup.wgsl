// C = alpha A B^T + beta C, tiles of both operands in workgroup memory.
//
// A workgroup makes a tile of 64 x 64: each of its 64 threads sums 8 rows by 8 columns. Per step of 16 along the depth
// a thread loads one 4 x 4 block of each operand.
//
// Grid: x = 64 columns, y = 64 rows.   Precision: sums in f32.

const STEP_QUADS = 4u;              // quads along the depth in a tile

// (depth, 16 quads of rows or columns)
var<workgroup> a_tile: array<vec4f, 256>;
var<workgroup> b_tile: array<vec4f, 256>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) tile: vec3u, @builtin(local_invocation_index) thread: u32) {
  let quad = thread % 16u;          // which 4 rows and columns it loads
  let step = thread / 16u;          // at which quad of the depth
  let iq = thread / 8u;             // it sums rows of quads iq and 8 + iq
  let jq = thread % 8u;             // and columns of quads jq and 8 + jq
  #for e in 0..8
  var left$e = vec4f();
  var right$e = vec4f();
  #end
  for (var rq = 0u; rq < p.depth; rq += STEP_QUADS) {
    var a_loaded = mat4x4f();
    var b_loaded = mat4x4f();
    if (rq + step < p.depth) {
      a_loaded = a_block(16u * tile.y + quad, rq + step);
      b_loaded = b_block(16u * tile.x + quad, rq + step);
    }
    workgroupBarrier();
    #for d in 0..4
    a_tile[(4u * step + $du) * 16u + quad] = a_loaded[$d];
    b_tile[(4u * step + $du) * 16u + quad] = b_loaded[$d];
    #end
    workgroupBarrier();
    for (var d = 0u; d < 4u * STEP_QUADS; d++) {
      let top = a_tile[d * 16u + iq];
      let bottom = a_tile[d * 16u + 8u + iq];
      let left = b_tile[d * 16u + jq];
      let right = b_tile[d * 16u + 8u + jq];
      #for e in 0..4
      left$e = fma(vec4f(top[$e]), left, left$e);
      right$e = fma(vec4f(top[$e]), right, right$e);
      #end
      #for e in 4..8
      left$e = fma(vec4f(bottom[$e - 4]), left, left$e);
      right$e = fma(vec4f(bottom[$e - 4]), right, right$e);
      #end
    }
  }
  let row0 = 64u * tile.y + 4u * iq;
  let jq0 = 16u * tile.x + jq;
  #for e in 0..4
  store(row0 + $eu, jq0, left$e);
  store(row0 + $eu, jq0 + 8u, right$e);
  #end
  #for e in 4..8
  store(row0 + 28u + $eu, jq0, left$e);
  store(row0 + 28u + $eu, jq0 + 8u, right$e);
  #end
}
