// Double quantisation: the scales of all blocks, less their mean, to 8 bits with an f32 scale per 256 of them.
// Dettmers et al. 2023, QLoRA, section 3; the 8-bit code is bitsandbytes' signed dynamic map.
//
// Grid: x = one workgroup of 64 threads per 256 scales; each thread packs four.

struct Params { blocks: u32 }

@group(0) @binding(0) var<storage, read> absmax: array<f32>;             // (blocks)
@group(0) @binding(1) var<storage, read> sum: array<f32>;                // (1), of all scales
@group(0) @binding(2) var<storage, read> dynamic_code: array<f32>;       // (256), ascending
@group(0) @binding(3) var<storage, read_write> codes: array<u32>;        // (blocks), 4 a word
@group(0) @binding(4) var<storage, read_write> nested: array<f32>;       // the offset, then one scale per 256 blocks
@group(0) @binding(5) var<uniform> p: Params;

var<workgroup> most: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let first = group.x * 256u + 4u * thread;
  let offset = sum[0] / f32(p.blocks);
  var centred = vec4f();
  var largest = 0.0;
  for (var i = 0u; i < 4u; i++) {
    if (first + i < p.blocks) {
      centred[i] = absmax[first + i] - offset;
      largest = max(largest, abs(centred[i]));
    }
  }
  most[thread] = largest;
  workgroupBarrier();
  for (var t = 0u; t < 64u; t++) {
    largest = max(largest, most[t]);
  }
  if (thread == 0u) {
    nested[1u + group.x] = largest;
    if (group.x == 0u) {
      nested[0] = offset;
    }
  }
  let inverse = select(0.0, 1.0 / largest, largest > 0.0);
  var word = 0u;
  for (var i = 0u; i < 4u; i++) {
    word |= nearest(centred[i] * inverse) << (8u * i);
  }
  if (first < p.blocks) {
    codes[first / 4u] = word;
  }
}

// Index of the nearest value of the map: binary search for the two neighbours, ties to the lower.
fn nearest(v: f32) -> u32 {
  var low = 0u;
  var high = 255u;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (v >= dynamic_code[middle]) {
      low = middle;
    } else {
      high = middle;
    }
  }
  let midpoint = 0.5 * (dynamic_code[low] + dynamic_code[high]);
  return select(low, high, v > midpoint);
}
