// The value of an NF4 code from the registers of eight lanes of a subgroup, two values in each.

var<private> nf4_held: vec2f;

fn prepare(thread: u32) {
  nf4_held = nf4_value(vec4u(thread % 8u, 8u + thread % 8u, 0u, 0u)).xy;
}

fn nf4_one(code: u32) -> f32 {
  let low = subgroupShuffle(nf4_held.x, code & 7u);
  let high = subgroupShuffle(nf4_held.y, code & 7u);
  return select(low, high, code >= 8u);
}

fn nf4_lookup(codes: vec4u) -> vec4f {
  return vec4f(nf4_one(codes.x), nf4_one(codes.y), nf4_one(codes.z), nf4_one(codes.w));
}
