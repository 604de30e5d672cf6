// NF4 to f32: one thread per quad of weights.
//
// Grid: x * 64 + thread quads, y for more than 65535 workgroups.

override GRID_X: u32 = 65535u;

struct Params { quads: u32, b_first: u32 }

@group(0) @binding(0) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(9) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let q = (group.y * GRID_X + group.x) * 64u + thread;
  if (q < p.quads) {
    y[q] = b_load(q);
  }
}
