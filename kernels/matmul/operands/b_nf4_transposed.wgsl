// Operand B of a product in NF4, transposed in memory: one row per depth, words along the columns of the result.

#needs b_word b_scale nf4_lookup nf4_begin

// Columns 4 jq .. 4 jq + 3 at one quad of depth: the halves of the four depths' words, and their scales.
struct RawB { codes: vec4u, scales: vec4f }

fn b_fetch(raw: ptr<function, RawB>, jq: u32, rq: u32) {
  let q = min(jq, p.cols - 1u);
  let words = vec4u(b_word(4u * rq, q), b_word(4u * rq + 1u, q), b_word(4u * rq + 2u, q), b_word(4u * rq + 3u, q));
  (*raw).codes = words >> vec4u(16u * (q % 2u));
  (*raw).scales = vec4f(b_scale(4u * rq, q), b_scale(4u * rq + 1u, q), b_scale(4u * rq + 2u, q), b_scale(4u * rq + 3u, q));
}

// 4 x 4 values: column d holds the four columns at depth d.
fn b_columns(raw: RawB) -> mat4x4f {
  #for d in 0..4
    let column$d = nf4_lookup(vec4u(raw.codes[$d]) >> vec4u(4u, 0u, 12u, 8u)) * raw.scales[$d];
  #end
  return mat4x4f(column0, column1, column2, column3);
}

fn b_begin(thread: u32) {
  nf4_begin(thread);
}
