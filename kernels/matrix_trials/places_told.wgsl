// Places that the host tells: compilers then add what keeps loads within bounds.

struct Params { at: u32, line_0: u32, line_1: u32, line_2: u32, line_3: u32 }
@group(0) @binding(2) var<uniform> p: Params;

var<private> at: u32;
var<private> line_0: u32;
var<private> line_1: u32;
var<private> line_2: u32;
var<private> line_3: u32;

fn find_places() {
  at = p.at;
  line_0 = p.line_0;
  line_1 = p.line_1;
  line_2 = p.line_2;
  line_3 = p.line_3;
}
