// Rotary position embedding, in place: within the first R elements of each head, element i is rotated with element
// i + R/2 by the angle of its position (the layout of Hugging Face checkpoints). Su et al. 2021, eq. 34.
//   x1' = x1 cos - SIGN sin x2,   x2' = x2 cos + SIGN sin x1
// A thread rotates two neighbours i, i + 1 and their partners: words of two elements serve every even R/2.
//
// Grid: one thread for each tensor, row, head and word of half of R; wrapped.

#needs load_word store_word
#needs TENSORS    // 1 or 2 that rotate alike

struct Params { rows: u32, heads_0: u32, heads_1: u32, half_words: u32, head_words: u32, sign: f32 }

#for t in 0..TENSORS
  @group(0) @binding($t) var<storage, read_write> x_$t: array<Word>;    // (rows, H * D)
#end
@group(0) @binding(2) var<storage, read> cosines: array<vec2f>;      // (P, R / 2)
@group(0) @binding(3) var<storage, read> sines: array<vec2f>;        // (P, R / 2)
@group(0) @binding(4) var<storage, read> positions: array<u32>;      // (rows), below P
@group(0) @binding(5) var<uniform> p: Params;                        // half_words: R / 4, head_words: D / 2

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = (group.y * groups.x + group.x) * 64u + lane;
  let i = id % p.half_words;
  var head = id / p.half_words;  // over all rows
  #for t in 0..TENSORS
    if (head < p.rows * p.heads_$t) {
      let at = positions[head / p.heads_$t] * p.half_words + i;
      let c = cosines[at];
      let s = p.sign * sines[at];
      let first = head * p.head_words + i;
      let second = first + p.half_words;
      let x1 = load_word(x_$t[first]);
      let x2 = load_word(x_$t[second]);
      x_$t[first] = store_word(x1 * c - x2 * s);
      x_$t[second] = store_word(x2 * c + x1 * s);
      return;
    }
    head -= p.rows * p.heads_$t;
  #end
}
