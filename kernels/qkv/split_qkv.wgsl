// Takes the fused product apart: head h of q, k and v is what lies at 3 h, 3 h + 1 and 3 h + 2 head sizes of a row.
//
// Grid: one thread per quad of q, wrapped.

struct Params { quads: u32, head_quads: u32 }

@group(0) @binding(0) var<storage, read> fused: array<X>;          // (rows, H * 3 * D)
@group(0) @binding(1) var<storage, read_write> q: array<X>;        // (rows, H * D)
@group(0) @binding(2) var<storage, read_write> k: array<X>;        // (rows, H * D)
@group(0) @binding(3) var<storage, read_write> v: array<X>;        // (rows, H * D)
@group(0) @binding(4) var<uniform> p: Params;                      // head_quads: D / 4

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  let first = i + i / p.head_quads * 2u * p.head_quads;
  q[i] = fused[first];
  k[i] = fused[first + p.head_quads];
  v[i] = fused[first + 2u * p.head_quads];
}
