// An operand of 16 bits whose lines are the depth: a word (two elements) of eight lines at a time, turned.

#needs operand_line operand_limit operand_last_quad octet_of turned_first turned_second Octets finite_most load_Operand
#needs OPERAND_SCALED    // whether it is brought into the range of f16; else it is f16

@group(0) @binding(binding_of_operand) var<storage, read> operand: array<Operand>;

// Of the lines 0, 2, 4, 6 and 1, 3, 5, 7.
struct RawOperand { even: vec4u, odd: vec4u }

// Elements 2 pair and 2 pair + 1 of lines 8 octet to 8 octet + 7; 0 from quad `end` of the depth on.
fn operand_fetch(pair: u32, octet: u32, end: u32) -> RawOperand {
  let quad = min(pair / 2u, operand_last_quad());
  var raw = RawOperand();
  #for e in 0..4
    if (8u * octet + 2u * $eu < operand_limit(end)) {
      raw.even[$e] = operand[operand_line(8u * octet + 2u * $eu) + quad][pair % 2u];
    }
    if (8u * octet + 2u * $eu + 1u < operand_limit(end)) {
      raw.odd[$e] = operand[operand_line(8u * octet + 2u * $eu + 1u) + quad][pair % 2u];
    }
  #end
  return raw;
}

fn operand_most(most: vec4i, raw: RawOperand) -> vec4i {
  let even = finite_most(finite_most(most, load_Operand(raw.even.xy)), load_Operand(raw.even.zw));
  return finite_most(finite_most(even, load_Operand(raw.odd.xy)), load_Operand(raw.odd.zw));
}

fn operand_octets(raw: RawOperand, up: f32) -> Octets {
  let first = turned_first(raw.even, raw.odd);
  let second = turned_second(raw.even, raw.odd);
  if (!OPERAND_SCALED) { return Octets(first, second); }
  return Octets(
    octet_of(load_Operand(first.xy) * up, load_Operand(first.zw) * up),
    octet_of(load_Operand(second.xy) * up, load_Operand(second.zw) * up),
  );
}
