// An operand in any format with lines along the depth, two lines and eight elements at a time.

#needs operand_start_$pair operand_line_$pair operand_masked_$pair Operand_$pair load_Operand_$pair octet_of Octets finite_most

@group(0) @binding(binding_of_operand) var<storage, read> operand: array<Operand_$pair>;

struct RawOperand_$pair { q0: Operand_$pair, q1: Operand_$pair, q2: Operand_$pair, q3: Operand_$pair }

fn operand_quad_$pair(line: u32, quad: u32, end: u32) -> Operand_$pair {
  if (quad >= end) { return Operand_$pair(); }
  return operand[operand_start_$pair() + operand_line_$pair(line) + quad];
}

// Quads 2 octet and 2 octet + 1 of lines 2 twin and 2 twin + 1; 0 from quad `end` of the depth on.
fn operand_fetch_$pair(twin: u32, octet: u32, end: u32) -> RawOperand_$pair {
  return RawOperand_$pair(
    operand_quad_$pair(2u * twin, 2u * octet, end),
    operand_quad_$pair(2u * twin, 2u * octet + 1u, end),
    operand_quad_$pair(2u * twin + 1u, 2u * octet, end),
    operand_quad_$pair(2u * twin + 1u, 2u * octet + 1u, end),
  );
}

fn operand_most_$pair(most: vec4i, raw: RawOperand_$pair) -> vec4i {
  let first = finite_most(finite_most(most, load_Operand_$pair(raw.q0)), load_Operand_$pair(raw.q1));
  return finite_most(finite_most(first, load_Operand_$pair(raw.q2)), load_Operand_$pair(raw.q3));
}

// What was fetched from there, taken times `up` as f16.
fn operand_octets_$pair(raw: RawOperand_$pair, up: f32, twin: u32, octet: u32) -> Octets {
  let octets = Octets(
    octet_of(load_Operand_$pair(raw.q0) * up, load_Operand_$pair(raw.q1) * up),
    octet_of(load_Operand_$pair(raw.q2) * up, load_Operand_$pair(raw.q3) * up),
  );
  return operand_masked_$pair(octets, twin, octet);
}
