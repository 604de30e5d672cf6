// The sizes of a grouped product, whose weight (E, N, K) is a matrix for each expert. What operands are asked for by the
// pieces that read them has the names of a plain product's.

#needs ADDS               // whether C is added to
#needs DROPS_A DROPS_B    // false

struct Params {
  rows: u32,          // rows of C that a workgroup may make of one expert
  cols: u32,          // quads of a row of C
  depth: u32,         // quads along the depth
  a_stride: u32,
  a_offset: u32,      // 0
  b_stride: u32,
  b_first: u32,       // index of B's first quad in its whole tensor: NF4 counts its blocks from there
  band: u32,          // as in a plain product
  outputs: u32,       // N: rows of the weight that are one expert's
  part_begin: u32,    // rows of the weight that are bound
  part_end: u32,
  starts_at: u32,     // of the table
  tiles_at: u32,
  first: u32,         // tile, or expert, that the grid begins with
  c_stride: u32,
  alpha: f32,
  beta: f32,
}

@group(0) @binding(1) var<storage, read_write> c: array<C>;
@group(0) @binding(6) var<storage, read> table: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

var<private> group_expert: u32;
var<private> group_begin: u32;    // rows of the table, from the first to before the last
var<private> group_end: u32;

// Operands begin where they are bound, and have no masks.
fn a_start() -> u32 { return 0u; }
fn b_start() -> u32 { return 0u; }
fn mask_start() -> u32 { return 0u; }

fn add_to_c(at: u32, sum: vec4f, beta: f32) {
  var value = p.alpha * sum;
  if (ADDS) {
    if (beta != 0.0) { value += beta * load_C(c[at]); }
  }
  c[at] = store_C(value);
}
