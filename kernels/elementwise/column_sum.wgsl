// Sums over blocks of rows: sums[b, c] = sum of x[r, c] over the rows r of block b; if ADD, factor times that is
// added to what is there. Repeated until one block is left.
//
// Grid: x over columns, 64 quads a workgroup; y over blocks of BLOCK_ROWS rows.

#needs BLOCK_ROWS ADD

struct Params { rows: u32, quads: u32, factor: f32 }

@group(0) @binding(0) var<storage, read> x: array<X>;                 // (rows, N)
@group(0) @binding(1) var<storage, read_write> sums: array<vec4f>;    // (blocks, N)
@group(0) @binding(2) var<uniform> p: Params;                         // quads: N / 4

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let q = id.x;
  if (q >= p.quads) { return; }
  let end = min(p.rows, (id.y + 1u) * BLOCK_ROWS);
  var sum = vec4f();
  for (var row = id.y * BLOCK_ROWS; row < end; row++) {
    sum += load_X(x[row * p.quads + q]);
  }
  let at = id.y * p.quads + q;
  if (ADD) { sum = sums[at] + p.factor * sum; }
  sums[at] = sum;
}
