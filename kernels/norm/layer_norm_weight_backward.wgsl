// Part of the gradient of LayerNorm to its weight: partial[b, c] = sum of dy[r, c] * (x[r, c] - mean[r]) * rstd[r]
// over the rows r of block b. The blocks are added up afterwards, in their order.
//
// Grid: x over columns, 64 quads a workgroup; y over blocks of BLOCK_ROWS rows.

#needs BLOCK_ROWS

struct Params { rows: u32, quads: u32 }

@group(0) @binding(0) var<storage, read> dy: array<Y>;                  // (rows, C)
@group(0) @binding(1) var<storage, read> x: array<X>;                   // (rows, C)
@group(0) @binding(2) var<storage, read> stats: array<vec2f>;           // (rows) mean, rstd
@group(0) @binding(3) var<storage, read_write> partial: array<vec4f>;   // (blocks, C)
@group(0) @binding(4) var<uniform> p: Params;                           // quads: C / 4

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let q = id.x;
  if (q >= p.quads) { return; }
  let end = min(p.rows, (id.y + 1u) * BLOCK_ROWS);
  var sum = vec4f();
  for (var row = id.y * BLOCK_ROWS; row < end; row++) {
    let h = (load_X(x[row * p.quads + q]) - stats[row].x) * stats[row].y;
    sum += load_Y(dy[row * p.quads + q]) * h;
  }
  partial[id.y * p.quads + q] = sum;
}
