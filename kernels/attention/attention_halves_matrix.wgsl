// Rows of heads for matrix units: a head in f16, times a power of two that brings its largest magnitude to 1 .. 2, and
// behind it the reciprocal of that power. What is down to 2^-14 of the largest keeps the 11 bits that f16 has.
//
// Grid: x * 64 + thread octets of the result, wrapped.

#needs power_of_two reciprocal
#needs D8    // octets (eight elements) of a head

struct Params {
  octets: u32,   // of the result
  rows: u32,     // of x; further rows of the result repeat the last one
  heads: u32,
}
@group(0) @binding(0) var<storage, read> x: array<X>;                   // (rows, heads, 2 D8)
@group(0) @binding(1) var<storage, read_write> halves: array<vec4u>;    // (rows or more, heads, D8 + 1)
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let n = (group.y * groups.x + group.x) * 64u + thread;
  if (n >= p.octets) { return; }
  let pair = n / (D8 + 1u);
  let octet = n % (D8 + 1u);
  let start = (min(pair / p.heads, p.rows - 1u) * p.heads + pair % p.heads) * 2u * D8;
  // Bits of magnitudes are in their order; what is not finite is left out.
  var bits = vec4u();
  for (var q = 0u; q < 2u * D8; q++) {
    let magnitude = bitcast<vec4u>(load_X(x[start + q])) & vec4u(0x7fffffffu);
    bits = max(bits, select(magnitude, vec4u(), magnitude >= vec4u(0x7f800000u)));
  }
  let up = power_of_two(clamp(127 - i32(max(max(bits.x, bits.y), max(bits.z, bits.w)) >> 23u), -60, 60));
  if (octet == D8) {
    halves[n] = vec4u(bitcast<u32>(reciprocal(up)), 0u, 0u, 0u);
  } else {
    let at = start + 2u * octet;
    halves[n] = vec4u(store_H(load_X(x[at]) * up), store_H(load_X(x[at + 1u]) * up));
  }
}
