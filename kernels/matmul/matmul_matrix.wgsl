// C = alpha A B^T + beta C on matrix units: f16 operands, f32 sums (docs/numerics.md says what the conversion keeps).
//
// A workgroup makes a tile of ROWS x COLUMNS; each of its subgroups sums a part of DOWN x ACROSS matrices. Both operands
// lie in workgroup memory with the depth inside, DEPTH at a time; while one step is multiplied, the next is on its way
// from storage in registers. matrix.ts sets what is in capitals.
//
// Grid: x = COLUMNS columns, y = ROWS rows.   Precision: sums in f32, operands rounded to f16 after a power of two has
// brought the largest value of each near the end of its range.

enable f16;
enable chromium_experimental_subgroup_matrix;
requires subgroup_id;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // offsets differ between subgroups, not within

const QUADS = DEPTH / 4u;
const LINE = DEPTH + 8u;            // of a row in workgroup memory: 16 bytes more keep rows off the same banks
const THREADS = LANES * SUBGROUPS;
const PART_ROWS = ROWS / SUBGROUPS_DOWN;
const PART_COLUMNS = COLUMNS / SUBGROUPS_ACROSS;

var<workgroup> a_tile: array<f16, ROWS * LINE>;
var<workgroup> b_tile: array<f16, COLUMNS * LINE>;
var<workgroup> result: array<f32, SUBGROUPS * SM * SN>;

// 4 x 4 values in f16: column e holds row e of the block along the depth.
struct Block { r0: vec4h, r1: vec4h, r2: vec4h, r3: vec4h }

fn block_of(values: mat4x4f, scale: f32) -> Block {
  let rows = transpose(values) * scale;
  return Block(vec4h(rows[0]), vec4h(rows[1]), vec4h(rows[2]), vec4h(rows[3]));
}

fn a_staged(tile: u32, n: u32, rq: u32, scale: f32) -> Block {
  let quad = rq + n % QUADS;
  if (quad >= p.depth) {
    return Block();
  }
  return block_of(a_block(tile * (ROWS / 4u) + n / QUADS, quad), scale);
}

fn b_staged(tile: u32, n: u32, rq: u32, scale: f32) -> Block {
  let quad = rq + n % QUADS;
  if (quad >= p.depth) {
    return Block();
  }
  return block_of(b_block(tile * (COLUMNS / 4u) + n / QUADS, quad), scale);
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) tile: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let a_scale = a_range();
  let b_scale = b_range();
  let part_row = subgroup / SUBGROUPS_ACROSS * PART_ROWS;
  let part_column = subgroup % SUBGROUPS_ACROSS * PART_COLUMNS;
#for i in 0..DOWN
#for j in 0..ACROSS
  var sum_$i_$j: Sums;
#end
#end
#for n in 0..A_BLOCKS
  var a_next_$n = a_staged(tile.y, thread + $nu * THREADS, 0u, a_scale.up);
#end
#for n in 0..B_BLOCKS
  var b_next_$n = b_staged(tile.x, thread + $nu * THREADS, 0u, b_scale.up);
#end
  for (var rq = 0u; rq < p.depth; rq += QUADS) {
    workgroupBarrier();
#for n in 0..A_BLOCKS
    {
      let n = thread + $nu * THREADS;
      let at = n / QUADS * 4u * LINE + n % QUADS * 4u;
#for e in 0..4
#for d in 0..4
      a_tile[at + $eu * LINE + $du] = a_next_$n.r$e[$d];
#end
#end
    }
#end
#for n in 0..B_BLOCKS
    {
      let n = thread + $nu * THREADS;
      let at = n / QUADS * 4u * LINE + n % QUADS * 4u;
#for e in 0..4
#for d in 0..4
      b_tile[at + $eu * LINE + $du] = b_next_$n.r$e[$d];
#end
#end
    }
#end
    workgroupBarrier();
    if (rq + QUADS < p.depth) {
#for n in 0..A_BLOCKS
      a_next_$n = a_staged(tile.y, thread + $nu * THREADS, rq + QUADS, a_scale.up);
#end
#for n in 0..B_BLOCKS
      b_next_$n = b_staged(tile.x, thread + $nu * THREADS, rq + QUADS, b_scale.up);
#end
    }
    for (var k = 0u; k < DEPTH; k += SK) {
#for i in 0..DOWN
      let left_$i = subgroupMatrixLoad<Left, row_major>(&a_tile, (part_row + $iu * SM) * LINE + k, LINE);
#end
#for j in 0..ACROSS
      let right_$j = subgroupMatrixLoad<Right, col_major>(&b_tile, (part_column + $ju * SN) * LINE + k, LINE);
#for i in 0..DOWN
      sum_$i_$j = subgroupMatrixMultiplyAccumulate(left_$i, right_$j, sum_$i_$j);
#end
#end
    }
  }
  let base = subgroup * (SM * SN);
#for i in 0..DOWN
#for j in 0..ACROSS
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&result, base, sum_$i_$j, SN);
  workgroupBarrier();
  for (var n = lane; n < SM * SN / 4u; n += LANES) {
    let at = base + 4u * n;
    let value = vec4f(result[at], result[at + 1u], result[at + 2u], result[at + 3u]) * a_scale.down * b_scale.down;
    let row = tile.y * ROWS + part_row + $iu * SM + n / (SN / 4u);
    store(row, (tile.x * COLUMNS + part_column + $ju * SN) / 4u + n % (SN / 4u), value);
  }
#end
#end
}
