// Random values by counter: element e depends on the key and on e alone. `draw` makes a quad of four random words.
//
// Grid: one thread per quad, wrapped. Words past the tensor's end are left as they are.

#needs draw random_words
#needs WORDS    // of 32 bits in a quad: 4, or 2 where elements have 16 bits

struct Params { words: u32, first_quad: u32, seed: u32, stream: u32, low: f32, span: f32 }

@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@group(0) @binding(1) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  let first = i * WORDS;
  if (first >= p.words) { return; }
  let quad = draw(random_words(vec2u(p.seed, p.stream), vec2u(p.first_quad + i, 0u)));
  #for w in 0..WORDS
    if (first + $wu < p.words) { x[first + $wu] = bitcast<u32>(quad[$w]); }
  #end
}
