// Weights in NF4, half a block of 64 a load.

#needs nf4_lookup nf4_codes nf4_scales nf4_scale_of nf4_begin

const QUADS = 8u;
alias Chunk = vec4u;

@group(0) @binding(2) var<storage, read> b: array<vec4u>;

var<private> b_scales: Nf4Scales;

fn b_chunk(row: u32, c: u32) -> Chunk {
  return b[part.b_first + row * (p.depth / QUADS) + c];
}

fn b_quad(chunk: Chunk, e: u32) -> vec4f {
  return nf4_lookup(nf4_codes(chunk[e / 2u], e % 2u));
}

// The chunk with the quads from the third on in front.
fn b_next(chunk: Chunk) -> Chunk {
  return chunk.yzwx;
}

fn b_scale(row: u32, c: u32) -> f32 {
  let block = (part.b_start + row * p.depth + c * QUADS) / 16u;
  return nf4_scale_of(b_scales, block, block);
}

fn b_begin(thread: u32) {
  nf4_begin(thread);
  b_scales = nf4_scales(part.nested_first, part.b_before / 256u);
}
