// The value of an NF4 code from a table in workgroup memory: sixteen words in sixteen banks, so lanes never collide.

var<workgroup> nf4_table: array<f32, 16>;

// What comes after it must have passed a barrier.
fn prepare(thread: u32) {
  if (thread < 16u) {
    nf4_table[thread] = nf4_value(vec4u(thread)).x;
  }
}

fn nf4_lookup(codes: vec4u) -> vec4f {
  return vec4f(nf4_table[codes.x], nf4_table[codes.y], nf4_table[codes.z], nf4_table[codes.w]);
}
