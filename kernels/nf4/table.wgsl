// NF4 codes to values through workgroup memory: on a GPU sixteen words lie in sixteen banks, so that any lookup of a
// warp is one access.

#needs nf4_value

var<workgroup> nf4_table: array<f32, 16>;

// To be called by every thread of a workgroup of 16 or more, first.
fn nf4_begin(thread: u32) {
  if (thread < 16u) {
    nf4_table[thread] = nf4_value(vec4u(thread)).x;
  }
  workgroupBarrier();
}

// The values of the codes in the low four bits, before scaling.
fn nf4_lookup(codes: vec4u) -> vec4f {
  let at = codes & vec4u(15u);
  return vec4f(nf4_table[at.x], nf4_table[at.y], nf4_table[at.z], nf4_table[at.w]);
}
