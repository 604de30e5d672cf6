// NF4 codes to values: four bits a weight, two weights a byte with the earlier in the high half, as bitsandbytes
// stores them. Each block of 64 weights has a scale.   Dettmers et al. 2023, QLoRA, section 3.

// The four weights in one half of a word, before scaling.
fn nf4_codes(word: u32, half: u32) -> vec4u {
  return (vec4u(word >> (16u * half)) >> vec4u(4u, 0u, 12u, 8u)) & vec4u(15u);
}

// A tree of selects: indexing a table by the code is two to three times slower on a CPU driver.
fn nf4_value(code: vec4u) -> vec4f {
  let b0 = (code & vec4u(1u)) != vec4u();
  let b1 = (code & vec4u(2u)) != vec4u();
  let b2 = (code & vec4u(4u)) != vec4u();
  let b3 = (code & vec4u(8u)) != vec4u();
  let v01 = select(vec4f(-1.0), vec4f(-0.6961928009986877), b0);
  let v23 = select(vec4f(-0.5250730514526367), vec4f(-0.39491748809814453), b0);
  let v45 = select(vec4f(-0.28444138169288635), vec4f(-0.18477343022823334), b0);
  let v67 = select(vec4f(-0.09105003625154495), vec4f(0.0), b0);
  let v89 = select(vec4f(0.07958029955625534), vec4f(0.16093020141124725), b0);
  let vab = select(vec4f(0.24611230194568634), vec4f(0.33791524171829224), b0);
  let vcd = select(vec4f(0.44070982933044434), vec4f(0.5626170039176941), b0);
  let vef = select(vec4f(0.7229568362236023), vec4f(1.0), b0);
  let low = select(select(v01, v23, b1), select(v45, v67, b1), b2);
  let high = select(select(v89, vab, b1), select(vcd, vef, b1), b2);
  return select(low, high, b3);
}
