// The result of a product whose depth was summed in parts: C = alpha (part 0 + part 1 + ...) + beta D, in that order.
//
// Grid: x * 64 + thread quads of C, wrapped.

#needs addend
#needs ADDS         // whether something is added

struct Params {
  blocks: u32,
  parts: u32,
  rows: u32,          // in a block
  cols: u32,          // quads of a row, in a block
  c_block: u32,       // quads from one block to the next
  c_stride: u32,
  c_offset: u32,
  alpha: f32,
  beta: f32,
}

@group(0) @binding(0) var<storage, read> sums: array<vec4f>;        // (blocks, parts, rows, cols)
@group(0) @binding(1) var<storage, read_write> c: array<C>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let q = (group.y * groups.x + group.x) * 64u + thread;
  let quads = p.rows * p.cols;
  let block = q / quads;
  if (block >= p.blocks) {
    return;
  }
  let within = q % quads;
  let first = block * p.parts * quads + within;
  var sum = sums[first];
  for (var part = 1u; part < p.parts; part++) {
    sum += sums[first + part * quads];
  }
  let at = block * p.c_block + (within / p.cols) * p.c_stride + p.c_offset + within % p.cols;
  var value = p.alpha * sum;
  if (ADDS) {
    value += p.beta * addend(at);
  }
  c[at] = store_C(value);
}
