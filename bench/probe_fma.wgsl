// Multiplications and additions only: ACCUMULATORS independent chains of quads in registers, so that the latency of one
// hides behind the others. Every thread stores its sum, so nothing can be left out.
//
// Grid: one thread per quad of `y`, workgroups along x.

struct Params { turns: u32, factor: f32, term: f32 }

@group(0) @binding(0) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(1) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let factor = vec4f(p.factor);
  let term = vec4f(p.term);
  let start = vec4f(f32(id.x & 7u));
  #for a in 0..ACCUMULATORS
    var s$a = start + vec4f($a.0);
  #end
  for (var turn = 0u; turn < p.turns; turn++) {
    #for k in 0..16
      #for a in 0..ACCUMULATORS
        s$a = fma(s$a, factor, term);
      #end
    #end
  }
  var sum = vec4f();
  #for a in 0..ACCUMULATORS
    sum += s$a;
  #end
  y[id.x] = sum;
}
