// Caps logits in place: y becomes soft_cap(y).   Grid: one thread per quad, wrapped.

#needs soft_cap

struct Params { quads: u32, cap: f32 }

@group(0) @binding(0) var<storage, read_write> logits: array<vec4f>;
@group(0) @binding(1) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.quads) { return; }
  logits[i] = soft_cap(logits[i], p.cap);
}
