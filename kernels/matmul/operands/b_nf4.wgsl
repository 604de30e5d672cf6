// Operand B of a product in NF4: one row per column of the result, words along the depth.

#needs b_word b_scale nf4_lookup nf4_begin

// Columns 4 jq .. 4 jq + 3 at one quad of depth: the halves of their words, and their scales.
struct RawB { codes: vec4u, scales: vec4f }

fn b_fetch(raw: ptr<function, RawB>, jq: u32, rq: u32) {
  let words = vec4u(b_word(4u * jq, rq), b_word(4u * jq + 1u, rq), b_word(4u * jq + 2u, rq), b_word(4u * jq + 3u, rq));
  (*raw).codes = words >> vec4u(16u * (rq % 2u));
  (*raw).scales = vec4f(
    b_scale(4u * jq, rq), b_scale(4u * jq + 1u, rq), b_scale(4u * jq + 2u, rq), b_scale(4u * jq + 3u, rq),
  );
}

// 4 x 4 values: column d holds the four columns at depth d.
fn b_columns(raw: RawB) -> mat4x4f {
  return mat4x4f(
    nf4_lookup(raw.codes >> vec4u(4u)) * raw.scales,
    nf4_lookup(raw.codes) * raw.scales,
    nf4_lookup(raw.codes >> vec4u(12u)) * raw.scales,
    nf4_lookup(raw.codes >> vec4u(8u)) * raw.scales,
  );
}

fn b_begin(thread: u32) {
  nf4_begin(thread);
}
