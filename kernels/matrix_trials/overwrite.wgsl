// Whether a matrix that was loaded stays as it was when the memory under it is overwritten.

enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // places are the same in all lanes

#needs Left Right Sums SM SN SK LANES    // of the matrix unit
#needs tile fill PER
#needs fold_right make_folds
#needs COUNT                             // matrices held

struct Params { turns: u32 }
@group(0) @binding(0) var<storage, read_write> y: array<f32>;  // (once, then turn by turn; COUNT, SM, SN)
@group(0) @binding(1) var<uniform> p: Params;

var<workgroup> sums: array<f32, 3u * COUNT * SM * SN>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) thread: u32) {
  fill(thread, 0u);
  make_folds(thread);
  workgroupBarrier();
  #for i in 0..COUNT
    let left_$i = subgroupMatrixLoad<Left, row_major>(&tile, $iu * SM * SK / PER, SK / PER);
  #end
  workgroupBarrier();
  fill(thread, 1u);
  workgroupBarrier();
  let right = subgroupMatrixLoad<Right, col_major>(&fold_right, 0u, SK);
  #for i in 0..COUNT
    subgroupMatrixStore<row_major>(&sums, $iu * SM * SN, subgroupMatrixMultiplyAccumulate(left_$i, right, Sums()), SN);
  #end
  for (var turn = 1u; turn <= p.turns; turn++) {
    workgroupBarrier();
    fill(thread, 1u + turn);
    workgroupBarrier();
    #for i in 0..COUNT
      subgroupMatrixStore<row_major>(
        &sums, (turn * COUNT + $iu) * SM * SN,
        subgroupMatrixMultiplyAccumulate(left_$i, subgroupMatrixLoad<Right, col_major>(&fold_right, 0u, SK), Sums()), SN);
    #end
  }
  workgroupBarrier();
  for (var n = thread; n < 3u * COUNT * SM * SN; n += LANES) { y[n] = sums[n]; }
}
