// An operand in f32 whose lines are the depth: two elements of eight lines at a time, turned.

#needs operand_line operand_limit operand_last_quad octet_of Octets finite_most

@group(0) @binding(binding_of_operand) var<storage, read> operand: array<Operand>;

// The two elements of lines 0 to 3 and 4 to 7.
struct RawOperand { first_0: vec4f, first_1: vec4f, second_0: vec4f, second_1: vec4f }

// Elements 2 pair and 2 pair + 1 of lines 8 octet to 8 octet + 7; 0 from quad `end` of the depth on.
fn operand_fetch(pair: u32, octet: u32, end: u32) -> RawOperand {
  let quad = min(pair / 2u, operand_last_quad());
  var raw = RawOperand();
  #for h in 0..2
    #for e in 0..4
      if (8u * octet + 4u * $hu + $eu < operand_limit(end)) {
        raw.first_$h[$e] = operand[operand_line(8u * octet + 4u * $hu + $eu) + quad][pair % 2u * 2u];
        raw.second_$h[$e] = operand[operand_line(8u * octet + 4u * $hu + $eu) + quad][pair % 2u * 2u + 1u];
      }
    #end
  #end
  return raw;
}

fn operand_most(most: vec4i, raw: RawOperand) -> vec4i {
  return finite_most(finite_most(finite_most(finite_most(most, raw.first_0), raw.first_1), raw.second_0), raw.second_1);
}

fn operand_octets(raw: RawOperand, up: f32) -> Octets {
  return Octets(octet_of(raw.first_0 * up, raw.first_1 * up), octet_of(raw.second_0 * up, raw.second_1 * up));
}
