// The sizes of a product, and its result C (rows, c_stride quads).

// Without ADDS nothing of C is loaded, which saves half the time that stores take to compile.
#needs ADDS    // whether C is added to

struct Params {
  rows: u32,          // rows of C
  cols: u32,          // quads of a row of C that are written
  depth: u32,         // quads along the depth
  span: u32,          // quads along the depth that one workgroup sums: part z of the grid begins at z * span
  depth_rows: u32,    // rows of a transposed A: the exact depth
  a_stride: u32,
  a_offset: u32,      // first quad of a row of A
  b_stride: u32,
  b_rows: u32,
  b_first: u32,       // index of B's first quad in its whole tensor: NF4 counts its blocks from there
  band: u32,          // rows of tiles that are worked through together, column by column
  c_stride: u32,
  c_offset: u32,      // first quad of a row of C
  c_part: u32,        // quads from one part of the sums to the next
  alpha: f32,
  beta: f32,
}

@group(0) @binding(1) var<storage, read_write> c: array<C>;
@group(0) @binding(9) var<uniform> p: Params;

fn store(part: u32, row: u32, jq: u32, sum: vec4f) {
  if (row >= p.rows || jq >= p.cols) {
    return;
  }
  let at = part * p.c_part + row * p.c_stride + p.c_offset + jq;
  var value = p.alpha * sum;
  if (ADDS) {
    value += p.beta * load_C(c[at]);
  }
  c[at] = store_C(value);
}
