// The few rows x and y of matrix-vector products, and their sizes. PARTS products of the same x are one dispatch: the quads
// of outputs of each come after those of the one before, and what each reads and writes is a part of the same buffers.

#needs PARTS

struct Params {
  rows: u32,        // of x and y, M at most
  depth: u32,       // quads along the depth
  x_stride: u32,    // quads of a row of x
  alpha: f32,
  beta: f32,
  eps: f32,         // of a norm: added under the root
  offset: f32,      // of a norm: added to each weight
  inner_stride: u32,  // quads of a row of the inner product's x
  #for i in 0..PARTS
    b_rows_$i: u32,
    b_start_$i: u32,
    y_first_$i: u32,
    y_stride_$i: u32,
    inner_first_$i: u32,
    inner_depth_$i: u32,
  #end
  // Of the first part these are 0.
  #for i in 1..PARTS
    first_$i: u32,
    b_first_$i: u32,
    inner_b_first_$i: u32,
    b_before_$i: u32,
    nested_first_$i: u32,
  #end
}

struct Part {
  first: u32,         // number of its first quad of outputs
  b_rows: u32,        // outputs that it makes
  b_start: u32,       // index of its first quad among those that NF4 has scales for: of its whole weight, and of parts before
  b_first: u32,       // where its weights begin in b, in chunks
  b_before: u32,      // blocks of NF4 before its weight's own, a multiple of 256
  nested_first: u32,  // where its weight's scales in f32 begin
  y_first: u32,       // first quad of y that it makes
  y_stride: u32,      // quads of a row of its y
  inner_first: u32,   // first quad that is read of a row of the inner product's x
  inner_depth: u32,   // quads along the depth of its inner product; 0 where it has none
  inner_b_first: u32, // where that reads inner_b from
}

@group(0) @binding(0) var<storage, read> x: array<X>;            // (rows, x_stride)
@group(0) @binding(1) var<storage, read_write> y: array<Y>;      // of each part (rows, y_stride)
@group(0) @binding(9) var<uniform> p: Params;

var<private> part: Part;

// Finds the part that a quad of outputs belongs to. To be called first.
fn find_part(nq: u32) {
  part = Part(
    0u, p.b_rows_0, p.b_start_0, 0u, 0u, 0u, p.y_first_0, p.y_stride_0, p.inner_first_0, p.inner_depth_0, 0u,
  );
  #for i in 1..PARTS
    if (nq >= p.first_$i) {
      part = Part(
        p.first_$i, p.b_rows_$i, p.b_start_$i, p.b_first_$i, p.b_before_$i, p.nested_first_$i,
        p.y_first_$i, p.y_stride_$i, p.inner_first_$i, p.inner_depth_$i, p.inner_b_first_$i,
      );
    }
  #end
}

// Index of a quad of x. Rows past the end repeat the last one, whose results are not stored.
fn x_at(row: u32, q: u32) -> u32 {
  return min(row, p.rows - 1u) * p.x_stride + min(q, p.depth - 1u);
}

// The row of the part's weight for output `n`; outputs past the part's end repeat its last one.
fn b_row(n: u32) -> u32 {
  return min(n - 4u * part.first, part.b_rows - 1u);
}

fn store(row: u32, nq: u32, sum: vec4f) {
  let quad = nq - part.first;
  if (row >= p.rows || 4u * quad >= part.b_rows) {
    return;
  }
  let at = part.y_first + row * part.y_stride + quad;
  var value = p.alpha * sum;
  if (p.beta != 0.0) {
    value += p.beta * load_Y(y[at]);
  }
  y[at] = store_Y(value);
}
