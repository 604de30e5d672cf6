// Weights in NF4, a word of eight a load: for rows that are no multiple of 32 weights.

#needs nf4_lookup nf4_codes nf4_scale nf4_begin

const QUADS = 2u;
alias Chunk = u32;

@group(0) @binding(2) var<storage, read> b: array<u32>;

fn b_chunk(row: u32, c: u32) -> Chunk {
  return b[row * (p.depth / QUADS) + c];
}

fn b_quad(chunk: Chunk, e: u32) -> vec4f {
  return nf4_lookup(nf4_codes(chunk, e));
}

fn b_next(chunk: Chunk) -> Chunk {
  return chunk;
}

fn b_scale(row: u32, c: u32) -> f32 {
  return nf4_scale((p.b_first + row * p.depth + c * QUADS) / 16u);
}

fn b_begin(thread: u32) {
  nf4_begin(thread);
}
