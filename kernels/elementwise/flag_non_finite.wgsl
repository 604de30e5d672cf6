// flags[slot] becomes 1 if an element is NaN or infinite, that is, if all bits of its exponent are set: adding the
// lowest of them then carries into the sign, which was masked off. A word holds one element, or two of 16 bits.
//
// Grid: RUN words per thread, 64 threads a workgroup, neighbours side by side; workgroups wrapped.

override RUN: u32;

struct Params { words: u32, exponents: u32, carry: u32, signs: u32, slot: u32 }

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> flags: array<u32>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group.y * groups.x + group.x) * 64u * RUN + lane;
  let end = min(first + 64u * RUN, p.words);
  var carried = 0u;
  for (var i = first; i < end; i += 64u) {
    carried |= (x[i] & p.exponents) + p.carry;
  }
  // Whoever writes, writes the same.
  if ((carried & p.signs) != 0u) { flags[p.slot] = 1u; }
}
