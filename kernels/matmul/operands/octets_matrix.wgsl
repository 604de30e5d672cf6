// An operand of 16 bits whose lines are whole octets (eight elements) along the depth, two lines and an octet at a time.

#needs operand_start_$pair operand_line_$pair operand_masked_$pair load_Operand_$pair octet_of Octets finite_most
#needs OPERAND_SCALED_$pair

@group(0) @binding(binding_of_operand) var<storage, read> operand: array<vec4u>;

struct RawOperand_$pair { first: vec4u, second: vec4u }

// Octet `octet` of lines 2 twin and 2 twin + 1; 0 from quad `end` of the depth on.
fn operand_fetch_$pair(twin: u32, octet: u32, end: u32) -> RawOperand_$pair {
  if (2u * octet >= end) { return RawOperand_$pair(); }
  let start = operand_start_$pair();
  return RawOperand_$pair(
    operand[(start + operand_line_$pair(2u * twin)) / 2u + octet],
    operand[(start + operand_line_$pair(2u * twin + 1u)) / 2u + octet],
  );
}

fn operand_most_$pair(most: vec4i, raw: RawOperand_$pair) -> vec4i {
  let first = finite_most(finite_most(most, load_Operand_$pair(raw.first.xy)), load_Operand_$pair(raw.first.zw));
  return finite_most(finite_most(first, load_Operand_$pair(raw.second.xy)), load_Operand_$pair(raw.second.zw));
}

// What was fetched from there, taken times `up` as f16.
fn operand_octets_$pair(raw: RawOperand_$pair, up: f32, twin: u32, octet: u32) -> Octets {
  if (!OPERAND_SCALED_$pair) { return operand_masked_$pair(Octets(raw.first, raw.second), twin, octet); }
  let octets = Octets(
    octet_of(load_Operand_$pair(raw.first.xy) * up, load_Operand_$pair(raw.first.zw) * up),
    octet_of(load_Operand_$pair(raw.second.xy) * up, load_Operand_$pair(raw.second.zw) * up),
  );
  return operand_masked_$pair(octets, twin, octet);
}
