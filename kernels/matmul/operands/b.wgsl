// Dense operand B of a product: one row per column of the result, quads along the depth.

#needs b_row b_start

@group(0) @binding(2) var<storage, read> b: array<B>;

// Quad `rq` of the row of column `column`, as stored.
fn b_raw(column: u32, rq: u32) -> B {
  return b[b_start() + b_row(column) * p.b_stride + p.b_first + rq];
}

// Columns 4 jq .. 4 jq + 3 at one quad of depth, as stored.
struct RawB { q0: B, q1: B, q2: B, q3: B }

fn b_fetch(raw: ptr<function, RawB>, jq: u32, rq: u32) {
  *raw = RawB(b_raw(4u * jq, rq), b_raw(4u * jq + 1u, rq), b_raw(4u * jq + 2u, rq), b_raw(4u * jq + 3u, rq));
}

// 4 x 4 values: column d holds the four columns at depth d.
fn b_columns(raw: RawB) -> mat4x4f {
  return transpose(mat4x4f(load_B(raw.q0), load_B(raw.q1), load_B(raw.q2), load_B(raw.q3)));
}

fn b_begin(thread: u32) {}
