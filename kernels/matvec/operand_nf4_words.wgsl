// Weights in NF4, a word of eight a load: for rows that are no multiple of 32 weights.

#needs nf4_lookup nf4_codes nf4_scales nf4_scale_of nf4_begin

const QUADS = 2u;
alias Chunk = u32;

@group(0) @binding(2) var<storage, read> b: array<u32>;

var<private> b_scales: Nf4Scales;

fn b_chunk(row: u32, c: u32) -> Chunk {
  return b[part.b_first + row * (p.depth / QUADS) + c];
}

fn b_quad(chunk: Chunk, e: u32) -> vec4f {
  return nf4_lookup(nf4_codes(chunk, e));
}

fn b_next(chunk: Chunk) -> Chunk {
  return chunk;
}

fn b_scale(row: u32, c: u32) -> f32 {
  let block = (part.b_start + row * p.depth + c * QUADS) / 16u;
  return nf4_scale_of(b_scales, block, block);
}

fn b_begin(thread: u32) {
  nf4_begin(thread);
  b_scales = nf4_scales(part.nested_first, part.b_before / 256u);
}
