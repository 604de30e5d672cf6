// An operand in any format with lines along the depth, two lines and eight elements at a time.

#needs operand_line octet_of Octets finite_most Operand load_Operand

@group(0) @binding(binding_of_operand) var<storage, read> operand: array<Operand>;

struct RawOperand { q0: Operand, q1: Operand, q2: Operand, q3: Operand }

fn operand_quad(line: u32, quad: u32, end: u32) -> Operand {
  if (quad >= end) { return Operand(); }
  return operand[operand_line(line) + quad];
}

// Quads 2 octet and 2 octet + 1 of lines 2 pair and 2 pair + 1; 0 from quad `end` of the depth on.
fn operand_fetch(pair: u32, octet: u32, end: u32) -> RawOperand {
  return RawOperand(
    operand_quad(2u * pair, 2u * octet, end),
    operand_quad(2u * pair, 2u * octet + 1u, end),
    operand_quad(2u * pair + 1u, 2u * octet, end),
    operand_quad(2u * pair + 1u, 2u * octet + 1u, end),
  );
}

fn operand_most(most: vec4i, raw: RawOperand) -> vec4i {
  let first = finite_most(finite_most(most, load_Operand(raw.q0)), load_Operand(raw.q1));
  return finite_most(finite_most(first, load_Operand(raw.q2)), load_Operand(raw.q3));
}

fn operand_octets(raw: RawOperand, up: f32) -> Octets {
  return Octets(
    octet_of(load_Operand(raw.q0) * up, load_Operand(raw.q1) * up),
    octet_of(load_Operand(raw.q2) * up, load_Operand(raw.q3) * up),
  );
}
