// An operand of 16 bits whose lines are whole octets (eight elements) along the depth, two lines and an octet at a time.

#needs operand_line octet_of Octets finite_most load_Operand
#needs OPERAND_SCALED    // whether it is brought into the range of f16; else it is f16

@group(0) @binding(binding_of_operand) var<storage, read> operand: array<vec4u>;

struct RawOperand { first: vec4u, second: vec4u }

// Octet `octet` of lines 2 pair and 2 pair + 1; 0 from quad `end` of the depth on.
fn operand_fetch(pair: u32, octet: u32, end: u32) -> RawOperand {
  if (2u * octet >= end) { return RawOperand(); }
  return RawOperand(operand[operand_line(2u * pair) / 2u + octet], operand[operand_line(2u * pair + 1u) / 2u + octet]);
}

fn operand_most(most: vec4i, raw: RawOperand) -> vec4i {
  let first = finite_most(finite_most(most, load_Operand(raw.first.xy)), load_Operand(raw.first.zw));
  return finite_most(finite_most(first, load_Operand(raw.second.xy)), load_Operand(raw.second.zw));
}

fn operand_octets(raw: RawOperand, up: f32) -> Octets {
  if (!OPERAND_SCALED) { return Octets(raw.first, raw.second); }
  return Octets(
    octet_of(load_Operand(raw.first.xy) * up, load_Operand(raw.first.zw) * up),
    octet_of(load_Operand(raw.second.xy) * up, load_Operand(raw.second.zw) * up),
  );
}
