// Operand B of a product in NF4 whose lines are the depth: a byte (two weights) of eight lines at a time, turned.

#needs b_word b_scale nf4_lookup nf4_begin octet_of Octets

// Its values are in the range of f16.
const B_SCALED_1 = false;

// Lines 0 to 3 and 4 to 7: the later weight in the lowest four bits, the earlier one above it.
struct RawB_1 { codes_0: vec4u, codes_1: vec4u, scales_0: vec4f, scales_1: vec4f }

// Weights 2 twin and 2 twin + 1 of lines 8 octet to 8 octet + 7, which repeat the last one: operand A is 0 past it.
fn b_fetch_1(twin: u32, octet: u32, end: u32) -> RawB_1 {
  let q = min(twin / 2u, p.cols - 1u);
  let shift = twin % 4u * 8u;
  var raw = RawB_1();
  #for h in 0..2
    #for e in 0..4
      raw.codes_$h[$e] = b_word(8u * octet + 4u * $hu + $eu, q) >> shift;
      raw.scales_$h[$e] = b_scale(8u * octet + 4u * $hu + $eu, q);
    #end
  #end
  return raw;
}

fn b_most_1(most: vec4i, raw: RawB_1) -> vec4i {
  return most;
}

fn b_octets_1(raw: RawB_1, up: f32, twin: u32, octet: u32) -> Octets {
  return Octets(
    octet_of(nf4_lookup(raw.codes_0 >> vec4u(4u)) * raw.scales_0, nf4_lookup(raw.codes_1 >> vec4u(4u)) * raw.scales_1),
    octet_of(nf4_lookup(raw.codes_0) * raw.scales_0, nf4_lookup(raw.codes_1) * raw.scales_1),
  );
}

fn b_begin(thread: u32) {
  nf4_begin(thread);
}
