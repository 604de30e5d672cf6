// Weights as they lie in memory, a quad a load.

const QUADS = 1u;
alias Chunk = B;

@group(0) @binding(2) var<storage, read> b: array<B>;

fn b_chunk(row: u32, c: u32) -> Chunk {
  return b[part.b_first + row * p.depth + c];
}

fn b_quad(chunk: Chunk, e: u32) -> vec4f {
  return load_B(chunk);
}

fn b_next(chunk: Chunk) -> Chunk {
  return chunk;
}

fn b_scale(row: u32, c: u32) -> f32 {
  return 1.0;
}

fn b_begin(thread: u32) {}
