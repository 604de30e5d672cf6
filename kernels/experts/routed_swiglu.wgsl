// SwiGLU times the weight of the row's expert: y = w silu(gate) up. What follows is linear, so the weight may come before.
//
// Grid: one thread per quad, wrapped.

#needs sigmoid PAIRS_AT

struct Params { quads: u32, row_quads: u32, pairs: u32 }

@group(0) @binding(0) var<storage, read> gate: array<X>;            // (T k, F)
@group(0) @binding(1) var<storage, read> up: array<X>;
@group(0) @binding(2) var<storage, read_write> y: array<X>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;       // (T k), by pair
@group(0) @binding(4) var<storage, read> table: array<u32>;
@group(0) @binding(5) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  let g = load_X(gate[i]);
  let weight = weights[table[PAIRS_AT * p.pairs + i / p.row_quads]];
  y[i] = store_X(weight * g * sigmoid(g) * load_X(up[i]));
}
