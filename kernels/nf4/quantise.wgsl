// Floats to NF4: each block of 64 consecutive weights is divided by its largest magnitude, and each quotient takes the
// code of the nearest of sixteen values (ties to the lower).   Dettmers et al. 2023, QLoRA, section 3.
//
// Grid: x * 64 + thread blocks, y for more than 65535 workgroups.

const GRID_X = 65535u;

struct Params {
  quads: u32,          // quads of weights in x
  first_block: u32,    // where the first block's scale goes
}

@group(0) @binding(0) var<storage, read> x: array<X>;
@group(0) @binding(1) var<storage, read_write> codes: array<u32>;     // 8 weights a word
@group(0) @binding(2) var<storage, read_write> absmax: array<f32>;    // (blocks of the whole tensor)
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let block = (group.y * GRID_X + group.x) * 64u + thread;
  let first = block * 16u;
  if (first >= p.quads) {
    return;
  }
  let end = min(first + 16u, p.quads);
  var most = vec4f();
  for (var q = first; q < end; q++) {
    most = max(most, abs(load_X(x[q])));
  }
  let scale = max(max(most.x, most.y), max(most.z, most.w));
  absmax[p.first_block + block] = scale;
  let inverse = select(0.0, 1.0 / scale, scale > 0.0);
  for (var q = first; q < end; q += 2u) {
    codes[q / 2u] = pack(nearest(load_X(x[q]) * inverse)) | (pack(nearest(load_X(x[q + 1u]) * inverse)) << 16u);
  }
}

// The number of midpoints between neighbouring values that v is above.
fn nearest(v: vec4f) -> vec4u {
  var code = vec4u();
  code += select(vec4u(), vec4u(1u), v > vec4f(-0.8480964004993439));
  code += select(vec4u(), vec4u(1u), v > vec4f(-0.6106329262256622));
  code += select(vec4u(), vec4u(1u), v > vec4f(-0.4599952697753906));
  code += select(vec4u(), vec4u(1u), v > vec4f(-0.33967943489551544));
  code += select(vec4u(), vec4u(1u), v > vec4f(-0.23460740596055984));
  code += select(vec4u(), vec4u(1u), v > vec4f(-0.13791173323988914));
  code += select(vec4u(), vec4u(1u), v > vec4f(-0.045525018125772476));
  code += select(vec4u(), vec4u(1u), v > vec4f(0.03979014977812767));
  code += select(vec4u(), vec4u(1u), v > vec4f(0.1202552504837513));
  code += select(vec4u(), vec4u(1u), v > vec4f(0.2035212516784668));
  code += select(vec4u(), vec4u(1u), v > vec4f(0.2920137718319893));
  code += select(vec4u(), vec4u(1u), v > vec4f(0.3893125355243683));
  code += select(vec4u(), vec4u(1u), v > vec4f(0.5016634166240692));
  code += select(vec4u(), vec4u(1u), v > vec4f(0.6427869200706482));
  code += select(vec4u(), vec4u(1u), v > vec4f(0.8614784181118011));
  return code;
}

fn pack(code: vec4u) -> u32 {
  return (code.x << 4u) | code.y | (code.z << 12u) | (code.w << 8u);
}
