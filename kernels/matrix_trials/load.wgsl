// Whether matrices come out of memory as they lie there: Left and Right, by rows and by columns, from lines of LINES lengths.

enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // places are the same in all lanes

#needs Left Right Sums SM SN SK LANES          // of the matrix unit
#needs tile fill PER                           // what is loaded from, and its elements of f16 in one of the array
#needs find_places at LINES    // and line_0, line_1 ...: where matrices lie
#needs fold_left fold_right make_folds

@group(0) @binding(0) var<storage, read_write> y: array<f32>;  // (lines, Left and Right by rows and by columns, SM, SN)

const SIZE = 4u * LINES * SM * SN;

var<workgroup> sums: array<f32, SIZE>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) thread: u32) {
  fill(thread, 0u);
  make_folds(thread);
  find_places();
  workgroupBarrier();
  let left = subgroupMatrixLoad<Left, row_major>(&fold_left, 0u, SK);
  let right = subgroupMatrixLoad<Right, col_major>(&fold_right, 0u, SK);
  #for l in 0..LINES
    {
      let by_rows = subgroupMatrixLoad<Left, row_major>(&tile, at / PER, line_$l / PER);
      let by_columns = subgroupMatrixLoad<Left, col_major>(&tile, at / PER, line_$l / PER);
      subgroupMatrixStore<row_major>(&sums, (4u * $lu) * SM * SN, subgroupMatrixMultiplyAccumulate(by_rows, right, Sums()), SN);
      subgroupMatrixStore<row_major>(&sums, (4u * $lu + 1u) * SM * SN, subgroupMatrixMultiplyAccumulate(by_columns, right, Sums()), SN);
    }
    {
      let by_rows = subgroupMatrixLoad<Right, row_major>(&tile, at / PER, line_$l / PER);
      let by_columns = subgroupMatrixLoad<Right, col_major>(&tile, at / PER, line_$l / PER);
      subgroupMatrixStore<row_major>(&sums, (4u * $lu + 2u) * SM * SN, subgroupMatrixMultiplyAccumulate(left, by_rows, Sums()), SN);
      subgroupMatrixStore<row_major>(&sums, (4u * $lu + 3u) * SM * SN, subgroupMatrixMultiplyAccumulate(left, by_columns, Sums()), SN);
    }
  #end
  workgroupBarrier();
  for (var n = thread; n < SIZE; n += LANES) { y[n] = sums[n]; }
}
