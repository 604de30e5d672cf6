// C = alpha A B^T + beta C on matrix units: f16 operands, f32 sums.

enable f16;
enable chromium_experimental_subgroup_matrix;
requires subgroup_id;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // offsets differ between subgroups, not within one

// A workgroup makes a tile of ROWS x COLUMNS; each of its subgroups sums a part of DOWN x ACROSS matrices. Both operands
// lie in workgroup memory with the depth inside, DEPTH at a time. The loads of a step are under way while the step
// before is multiplied; values are decoded, scaled (range_matrix.wgsl) and rounded once, on their way into the tile.
//
// Grid: x = rows of a tile, y = columns of a tile, z = parts of the depth.

#needs b_begin RawA RawB a_fetch b_fetch a_rows b_columns store a_range b_range
#needs Sums SM SN SK LANES    // of the matrix unit
#needs ROWS COLUMNS DEPTH
#needs SUBGROUPS SUBGROUPS_DOWN SUBGROUPS_ACROSS
#needs DOWN ACROSS            // matrices that a subgroup sums
#needs A_BLOCKS B_BLOCKS      // 4 x 4 blocks that a thread loads for a step

const QUADS = DEPTH / 4u;
const LINE = DEPTH + 8u;            // of a row in workgroup memory: 16 bytes more keep rows off the same banks
const THREADS = LANES * SUBGROUPS;
const PART_ROWS = ROWS / SUBGROUPS_DOWN;
const PART_COLUMNS = COLUMNS / SUBGROUPS_ACROSS;

var<workgroup> a_tile: array<f16, ROWS * LINE>;
var<workgroup> b_tile: array<f16, COLUMNS * LINE>;
var<workgroup> sums: array<f32, SUBGROUPS * SM * SN>;

// Block n of a tile is four of its rows (or columns) at one quad of the depth; this is where it begins.
fn start_of(n: u32) -> u32 {
  return n / QUADS * 4u * LINE + n % QUADS * 4u;
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) tile: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  b_begin(thread);
  let a_scale = a_range();
  let b_scale = b_range();
  let part_row = subgroup / SUBGROUPS_ACROSS * PART_ROWS;
  let part_column = subgroup % SUBGROUPS_ACROSS * PART_COLUMNS;
  let begin = tile.z * p.span;
  let end = min(begin + p.span, p.depth);
  #for i in 0..DOWN
    #for j in 0..ACROSS
      var sum_$i_$j = Sums();
    #end
  #end
  // Load the first step of both operands.
  #for n in 0..A_BLOCKS
    let a_at_$n = thread + $nu * THREADS;
    let a_quad_$n = begin + a_at_$n % QUADS;
    var a_next_$n = RawA();
    if (a_quad_$n < end) { a_next_$n = a_fetch(tile.x * (ROWS / 4u) + a_at_$n / QUADS, a_quad_$n); }
  #end
  #for n in 0..B_BLOCKS
    let b_at_$n = thread + $nu * THREADS;
    let b_quad_$n = begin + b_at_$n % QUADS;
    var b_next_$n = RawB();
    if (b_quad_$n < end) { b_fetch(&b_next_$n, tile.y * (COLUMNS / 4u) + b_at_$n / QUADS, b_quad_$n); }
  #end
  for (var step = 0u; begin + step < end; step += QUADS) {
    // Decode, scale and round what was loaded into the tiles.
    workgroupBarrier();
    #for n in 0..A_BLOCKS
      {
        let rows = a_rows(a_next_$n) * a_scale.up;
        let at = start_of(a_at_$n);
        #for e in 0..4
          #for d in 0..4
            a_tile[at + $eu * LINE + $du] = f16(rows[$e][$d]);
          #end
        #end
      }
    #end
    #for n in 0..B_BLOCKS
      {
        let columns = b_columns(b_next_$n) * b_scale.up;
        let at = start_of(b_at_$n);
        #for e in 0..4
          #for d in 0..4
            b_tile[at + $eu * LINE + $du] = f16(columns[$d][$e]);
          #end
        #end
      }
    #end
    workgroupBarrier();
    // Load the next step. Past the end A is 0, and B whatever it was.
    let next = step + QUADS;
    #for n in 0..A_BLOCKS
      a_next_$n = RawA();
      if (a_quad_$n + next < end) {
        a_next_$n = a_fetch(tile.x * (ROWS / 4u) + a_at_$n / QUADS, a_quad_$n + next);
      }
    #end
    #for n in 0..B_BLOCKS
      if (b_quad_$n + next < end) {
        b_fetch(&b_next_$n, tile.y * (COLUMNS / 4u) + b_at_$n / QUADS, b_quad_$n + next);
      }
    #end
    // Multiply.
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
  // Write. The sums of a matrix go through workgroup memory, since only whole matrices have an address.
  let base = subgroup * (SM * SN);
  #for i in 0..DOWN
    #for j in 0..ACROSS
      workgroupBarrier();
      subgroupMatrixStore<row_major>(&sums, base, sum_$i_$j, SN);
      workgroupBarrier();
      for (var n = lane; n < SM * SN / 4u; n += LANES) {
        let at = base + 4u * n;
        let value = vec4f(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]);
        store(
          tile.z,
          tile.x * ROWS + part_row + $iu * SM + n / (SN / 4u),
          (tile.y * COLUMNS + part_column + $ju * SN) / 4u + n % (SN / 4u),
          value * a_scale.down * b_scale.down,
        );
      }
    #end
  #end
}
