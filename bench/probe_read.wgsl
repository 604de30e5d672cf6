// Reads every quad of `x` once and adds them up: each workgroup goes through a run of memory of its own, neighbouring
// threads over neighbouring quads, four in flight.
//
// Grid: workgroups along x; `x` has 4 * WIDTH * turns quads for each.

struct Params { turns: u32 }

#needs WIDTH

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(WIDTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  #for a in 0..4
    var s$a = vec4f();
  #end
  var at = group.x * p.turns * 4u * WIDTH + lane;
  for (var turn = 0u; turn < p.turns; turn++) {
    #for a in 0..4
      s$a += x[at + $au * WIDTH];
    #end
    at += 4u * WIDTH;
  }
  y[group.x * WIDTH + lane] = (s0 + s1) + (s2 + s3);
}
