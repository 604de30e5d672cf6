// A quad of operand B in NF4, by its place in a tile (quads.wgsl): half a word.

#needs b_word b_scale nf4_lookup nf4_begin
#needs B_ALONG
#needs STEP       // quads along the depth from one fetch of a thread to its next
#needs STRETCH    // quads that share a scale, from the first of a row on

struct QuadB { codes: u32, scale: f32 }

// Along the depth a scale is read in the first of the steps that lie in its stretch.
fn b_fetch_quad(quad: ptr<function, QuadB>, jq: u32, e: u32, rq: u32) {
  var at = vec2u(4u * rq + e, min(jq, p.cols - 1u));
  if (B_ALONG) { at = vec2u(4u * jq + e, rq); }
  (*quad).codes = b_word(at.x, at.y) >> (16u * (at.y % 2u));
  if (!B_ALONG || rq % STRETCH < STEP) { (*quad).scale = b_scale(at.x, at.y); }
}

fn b_value(quad: QuadB) -> vec4f {
  return nf4_lookup(vec4u(quad.codes) >> vec4u(4u, 0u, 12u, 8u)) * quad.scale;
}

fn b_begin(thread: u32) {
  nf4_begin(thread);
}
