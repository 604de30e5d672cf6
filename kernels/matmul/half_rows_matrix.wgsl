// Rows for matrix units: each in f16, times a power of two that brings its largest magnitude to 2^14 .. 2^15, and the
// reciprocal of that power. What is down to 2^-28 of the largest keeps the 11 bits that f16 has. Rows of an inner product
// that is summed with them are taken times the same power.
//
// Grid: one workgroup per row, wrapped.

#needs workgroup_max octet_of power_of_two reciprocal
#needs LANES
#needs INNERS    // 1 where there is an inner product, else 0

struct Params {
  rows: u32,
  octets: u32,     // of a row of the result
  x_stride: u32,   // quads of a row of x
  x_first: u32,    // first of them that takes part
  inner_quads: u32,    // of a row of the inner product
}

@group(0) @binding(0) var<storage, read> x: array<X>;                     // (rows, x_stride)
@group(0) @binding(1) var<storage, read_write> halves: array<vec4u>;      // (rows, octets)
@group(0) @binding(2) var<storage, read_write> factors: array<f32>;       // (rows)
@group(0) @binding(3) var<uniform> p: Params;
#for i in 0..INNERS
  @group(0) @binding(4) var<storage, read> inner: array<vec4f>;                 // (rows, inner_quads)
  @group(0) @binding(5) var<storage, read_write> scaled_inner: array<vec4f>;    // (rows, inner_quads)
#end

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.y * groups.x + group.x;
  // The same for the whole workgroup, so leaving here splits no barrier.
  if (row >= p.rows) { return; }
  let first = row * p.x_stride + p.x_first;
  // Bits of magnitudes are in their order; what is not finite is left out.
  var bits = vec4u();
  for (var q = lane; q < 2u * p.octets; q += LANES) {
    let magnitude = bitcast<vec4u>(load_X(x[first + q])) & vec4u(0x7fffffffu);
    bits = max(bits, select(magnitude, vec4u(), magnitude >= vec4u(0x7f800000u)));
  }
  let most = workgroup_max(lane, bitcast<f32>(max(max(bits.x, bits.y), max(bits.z, bits.w))));
  let up = power_of_two(141 - i32(bitcast<u32>(most) >> 23u));
  for (var octet = lane; octet < p.octets; octet += LANES) {
    let at = first + 2u * octet;
    halves[row * p.octets + octet] = octet_of(load_X(x[at]) * up, load_X(x[at + 1u]) * up);
  }
  #for i in 0..INNERS
    for (var q = row * p.inner_quads + lane; q < (row + 1u) * p.inner_quads; q += LANES) {
      scaled_inner[q] = inner[q] * up;
    }
  #end
  if (lane == 0u) { factors[row] = reciprocal(up); }
}
