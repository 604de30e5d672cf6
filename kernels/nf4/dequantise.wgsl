// NF4 to floats: one thread per quad of weights.
//
// Grid: x * 64 + thread quads, y for more than 65535 workgroups.

#needs nf4_codes nf4_value nf4_scale

const GRID_X = 65535u;

struct Params {
  quads: u32,      // of y
  b_first: u32,    // index of b's first quad in the whole matrix: blocks count from there
}

@group(0) @binding(0) var<storage, read_write> y: array<Y>;
@group(0) @binding(2) var<storage, read> b: array<u32>;         // 8 weights a word
@group(0) @binding(9) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let q = (group.y * GRID_X + group.x) * 64u + thread;
  if (q < p.quads) {
    y[q] = store_Y(nf4_value(nf4_codes(b[q / 2u], q % 2u)) * nf4_scale((p.b_first + q) / 16u));
  }
}
