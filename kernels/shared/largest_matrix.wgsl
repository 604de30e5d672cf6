// The largest absolute value of a matrix, infinities and NaN left out, as the bits of an f32.
//
// Grid: x = 256 threads, together they go over all quads.

struct Params { quads: u32, at: u32 }

@group(0) @binding(0) var<storage, read> x: array<X>;
@group(0) @binding(1) var<storage, read_write> largest: array<atomic<u32>>;
@group(0) @binding(2) var<uniform> p: Params;

var<workgroup> most: atomic<u32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  var bits = vec4u();
  for (var q = id.x; q < p.quads; q += 256u * groups.x) {
    let magnitude = bitcast<vec4u>(load_X(x[q])) & vec4u(0x7fffffffu);
    bits = max(bits, select(magnitude, vec4u(), magnitude >= vec4u(0x7f800000u)));
  }
  atomicMax(&most, max(max(bits.x, bits.y), max(bits.z, bits.w)));
  workgroupBarrier();
  if (thread == 0u) {
    atomicMax(&largest[p.at], atomicLoad(&most));
  }
}
