// Eight f16 (an octet, 16 bytes) of eight rows, turned: the octets of two of their elements. What matrix units multiply then
// lies in one direction everywhere, and words move whole.

// The earlier elements of pairs in the rows 0, 2, 4, 6 and 1, 3, 5, 7.
fn turned_first(even: vec4u, odd: vec4u) -> vec4u {
  return (even & vec4u(0xffffu)) | (odd << vec4u(16u));
}

fn turned_second(even: vec4u, odd: vec4u) -> vec4u {
  return (even >> vec4u(16u)) | (odd & vec4u(0xffff0000u));
}

// Eight values in the range of f16 as an octet.
fn octet_of(a: vec4f, b: vec4f) -> vec4u {
  return vec4u(pack2x16float(a.xy), pack2x16float(a.zw), pack2x16float(b.xy), pack2x16float(b.zw));
}

// An octet without those of its first four elements, and of its last four, that are not kept: they become 0.
fn octet_kept(octet: vec4u, a: vec4<bool>, b: vec4<bool>) -> vec4u {
  let earlier = select(vec4u(), vec4u(0xffffu), vec4<bool>(a.xz, b.xz));
  let later = select(vec4u(), vec4u(0xffff0000u), vec4<bool>(a.yw, b.yw));
  return octet & (earlier | later);
}
