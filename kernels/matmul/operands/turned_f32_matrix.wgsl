// An operand in f32 whose lines are the depth: two elements of eight lines at a time, turned.

#needs operand_start_$pair operand_line_$pair operand_limit_$pair operand_last_quad_$pair operand_masked_$pair
#needs Operand_$pair octet_of Octets finite_most

@group(0) @binding(binding_of_operand) var<storage, read> operand: array<Operand_$pair>;

// The two elements of lines 0 to 3 and 4 to 7.
struct RawOperand_$pair { first_0: vec4f, first_1: vec4f, second_0: vec4f, second_1: vec4f }

// Elements 2 twin and 2 twin + 1 of lines 8 octet to 8 octet + 7; 0 from quad `end` of the depth on.
fn operand_fetch_$pair(twin: u32, octet: u32, end: u32) -> RawOperand_$pair {
  let at = operand_start_$pair() + min(twin / 2u, operand_last_quad_$pair());
  var raw = RawOperand_$pair();
  #for h in 0..2
    #for e in 0..4
      if (8u * octet + 4u * $hu + $eu < operand_limit_$pair(end)) {
        raw.first_$h[$e] = operand[at + operand_line_$pair(8u * octet + 4u * $hu + $eu)][twin % 2u * 2u];
        raw.second_$h[$e] = operand[at + operand_line_$pair(8u * octet + 4u * $hu + $eu)][twin % 2u * 2u + 1u];
      }
    #end
  #end
  return raw;
}

fn operand_most_$pair(most: vec4i, raw: RawOperand_$pair) -> vec4i {
  return finite_most(finite_most(finite_most(finite_most(most, raw.first_0), raw.first_1), raw.second_0), raw.second_1);
}

// What was fetched from there, taken times `up` as f16.
fn operand_octets_$pair(raw: RawOperand_$pair, up: f32, twin: u32, octet: u32) -> Octets {
  let octets = Octets(
    octet_of(raw.first_0 * up, raw.first_1 * up),
    octet_of(raw.second_0 * up, raw.second_1 * up),
  );
  return operand_masked_$pair(octets, twin, octet);
}
