// The few rows x and y of a matrix-vector product, and its sizes.

struct Params {
  rows: u32,        // of x and y, M at most
  depth: u32,       // quads along the depth
  x_stride: u32,    // quads of a row of x
  b_rows: u32,      // outputs that this part of the weight makes
  b_first: u32,     // index of the part's first quad in the whole weight: NF4 counts its blocks from there
  y_stride: u32,    // quads of a row of y
  y_offset: u32,    // first quad of a row that is made
  alpha: f32,
  beta: f32,
  eps: f32,         // of a norm: added under the root
  offset: f32,      // of a norm: added to each weight
  inner_depth: u32,   // quads along the depth of the inner product
  inner_stride: u32,  // quads of a row of its x
  inner_offset: u32,  // first quad of a row that is read
}

@group(0) @binding(0) var<storage, read> x: array<X>;            // (rows, x_stride)
@group(0) @binding(1) var<storage, read_write> y: array<Y>;      // (rows, y_stride)
@group(0) @binding(9) var<uniform> p: Params;

// Index of a quad of x. Rows past the end repeat the last one, whose results are not stored.
fn x_at(row: u32, q: u32) -> u32 {
  return min(row, p.rows - 1u) * p.x_stride + min(q, p.depth - 1u);
}

// The weight's row for output `n` of this part; outputs past the end repeat the last one.
fn b_row(n: u32) -> u32 {
  return min(n, p.b_rows - 1u);
}

fn store(row: u32, nq: u32, sum: vec4f) {
  if (row >= p.rows || 4u * nq >= p.b_rows) {
    return;
  }
  let at = row * p.y_stride + p.y_offset + nq;
  var value = p.alpha * sum;
  if (p.beta != 0.0) {
    value += p.beta * load_Y(y[at]);
  }
  y[at] = store_Y(value);
}
