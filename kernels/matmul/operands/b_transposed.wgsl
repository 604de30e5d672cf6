// Dense operand B of a product, transposed in memory: one row per depth, quads along the columns of the result. A
// mask may drop elements: those count as 0.

#needs b_row b_start mask_start kept
#needs DROPS_B

@group(0) @binding(2) var<storage, read> b: array<B>;

// Quad `jq` of the row at `depth`, as stored. Rows past the end repeat the last one: operand A is 0 there.
fn b_raw(depth: u32, jq: u32) -> B {
  let at = b_row(depth) * p.b_stride + p.b_first + min(jq, p.cols - 1u);
  let quad = b[b_start() + at];
  if (DROPS_B) { return store_B(select(vec4f(), load_B(quad), kept(mask_start(), at))); }
  return quad;
}

// Columns 4 jq .. 4 jq + 3 at one quad of depth, as stored.
struct RawB { q0: B, q1: B, q2: B, q3: B }

fn b_fetch(raw: ptr<function, RawB>, jq: u32, rq: u32) {
  *raw = RawB(b_raw(4u * rq, jq), b_raw(4u * rq + 1u, jq), b_raw(4u * rq + 2u, jq), b_raw(4u * rq + 3u, jq));
}

// 4 x 4 values: column d holds the four columns at depth d.
fn b_columns(raw: RawB) -> mat4x4f {
  return mat4x4f(load_B(raw.q0), load_B(raw.q1), load_B(raw.q2), load_B(raw.q3));
}

fn b_begin(thread: u32) {}
