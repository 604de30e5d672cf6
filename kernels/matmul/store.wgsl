// The sizes of a product, and its result C (rows, c_stride quads).

// Without ADDS nothing is loaded that C is added to, which saves half the time that stores take to compile.
#needs addend kept
#needs ADDS                         // whether something is added
#needs DROPS_A DROPS_B             // whether a mask drops elements of A, of B

struct Params {
  rows: u32,          // rows of C, in a block
  cols: u32,          // quads of a row of C that are written, in a block
  depth: u32,         // quads along the depth
  span: u32,          // quads along the depth that one workgroup sums: part n begins at n * span
  parts: u32,         // z of the grid is block * parts + part
  depth_rows: u32,    // rows of a transposed A: the exact depth
  a_stride: u32,
  a_offset: u32,      // first quad of a row of A
  b_stride: u32,
  b_rows: u32,
  b_first: u32,       // index of B's first quad in its whole tensor: NF4 counts its blocks of weights from there
  band: u32,          // rows of tiles that are worked through together, column by column
  c_stride: u32,
  c_offset: u32,      // first quad of a row of C
  c_part: u32,        // quads from one part of the sums to the next
  a_block: u32,       // quads from one block's A to that of the next; likewise B and C
  b_block: u32,
  c_block: u32,
  inner_a_block: u32,
  inner_b_block: u32,
  inner_depth: u32,   // quads along the depth of the inner product
  inner_a_stride: u32,
  inner_a_offset: u32,
  inner_b_stride: u32,
  mask_quad: u32,
  mask_quad_high: u32,
  mask_seed: u32,
  mask_stream: u32,
  mask_step: u32,     // streams from the mask of one block to that of the next
  mask_threshold: u32,
  alpha: f32,
  beta: f32,
}

@group(0) @binding(1) var<storage, read_write> c: array<C>;
@group(0) @binding(9) var<uniform> p: Params;

// Which of several products of one shape a workgroup works on.
var<private> block: u32;

// @param z of the grid
fn store(z: u32, row: u32, jq: u32, sum: vec4f) {
  if (row >= p.rows || jq >= p.cols) {
    return;
  }
  let at = block * p.c_block + (z % p.parts) * p.c_part + row * p.c_stride + p.c_offset + jq;
  var value = p.alpha * sum;
  if (ADDS) {
    value += p.beta * addend(at);
  }
  c[at] = store_C(value);
}
