// Weights of 16 bits, two quads a load.

const QUADS = 2u;
alias Chunk = vec4u;

@group(0) @binding(2) var<storage, read> b: array<vec4u>;

fn b_chunk(row: u32, c: u32) -> Chunk {
  return b[part.b_first + row * (p.depth / QUADS) + c];
}

fn b_quad(chunk: Chunk, e: u32) -> vec4f {
  return load_B(select(chunk.zw, chunk.xy, e == 0u));
}

fn b_next(chunk: Chunk) -> Chunk {
  return chunk;
}

fn b_scale(row: u32, c: u32) -> f32 {
  return 1.0;
}

fn b_begin(thread: u32) {}
