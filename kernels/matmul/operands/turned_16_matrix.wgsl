// An operand of 16 bits whose lines are the depth: a word (two elements) of eight lines at a time, turned.

#needs operand_start_$pair operand_line_$pair operand_limit_$pair operand_last_quad_$pair operand_masked_$pair
#needs Operand_$pair load_Operand_$pair octet_of turned_first turned_second Octets finite_most
#needs OPERAND_SCALED_$pair

@group(0) @binding(binding_of_operand) var<storage, read> operand: array<Operand_$pair>;

// Of the lines 0, 2, 4, 6 and 1, 3, 5, 7.
struct RawOperand_$pair { even: vec4u, odd: vec4u }

// Elements 2 twin and 2 twin + 1 of lines 8 octet to 8 octet + 7; 0 from quad `end` of the depth on.
fn operand_fetch_$pair(twin: u32, octet: u32, end: u32) -> RawOperand_$pair {
  let at = operand_start_$pair() + min(twin / 2u, operand_last_quad_$pair());
  var raw = RawOperand_$pair();
  #for e in 0..4
    if (8u * octet + 2u * $eu < operand_limit_$pair(end)) {
      raw.even[$e] = operand[at + operand_line_$pair(8u * octet + 2u * $eu)][twin % 2u];
    }
    if (8u * octet + 2u * $eu + 1u < operand_limit_$pair(end)) {
      raw.odd[$e] = operand[at + operand_line_$pair(8u * octet + 2u * $eu + 1u)][twin % 2u];
    }
  #end
  return raw;
}

fn operand_most_$pair(most: vec4i, raw: RawOperand_$pair) -> vec4i {
  let even = finite_most(finite_most(most, load_Operand_$pair(raw.even.xy)), load_Operand_$pair(raw.even.zw));
  return finite_most(finite_most(even, load_Operand_$pair(raw.odd.xy)), load_Operand_$pair(raw.odd.zw));
}

// What was fetched from there, taken times `up` as f16.
fn operand_octets_$pair(raw: RawOperand_$pair, up: f32, twin: u32, octet: u32) -> Octets {
  let first = turned_first(raw.even, raw.odd);
  let second = turned_second(raw.even, raw.odd);
  if (!OPERAND_SCALED_$pair) { return operand_masked_$pair(Octets(first, second), twin, octet); }
  let octets = Octets(
    octet_of(load_Operand_$pair(first.xy) * up, load_Operand_$pair(first.zw) * up),
    octet_of(load_Operand_$pair(second.xy) * up, load_Operand_$pair(second.zw) * up),
  );
  return operand_masked_$pair(octets, twin, octet);
}
