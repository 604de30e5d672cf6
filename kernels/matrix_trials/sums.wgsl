// Whether sums survive the way through memory: stored, their elements scaled, loaded, stored elsewhere and added to.

enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // places are the same in all lanes

#needs Left Right Sums SM SN SK LANES    // of the matrix unit
#needs tile fill PER
#needs fold_left make_folds

@group(0) @binding(0) var<storage, read_write> y: array<f32>;  // (cases, SM, SN)

const WIDE = 2u * SN + 4u;  // a line of 16 bytes more
const SIZE = SM * SN;

var<workgroup> narrow: array<f32, SIZE>;
var<workgroup> wide: array<f32, SM * WIDE>;
var<workgroup> out: array<f32, 4u * SIZE>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) thread: u32) {
  fill(thread, 0u);
  make_folds(thread);
  workgroupBarrier();
  let left = subgroupMatrixLoad<Left, row_major>(&fold_left, 0u, SK);
  let right = subgroupMatrixLoad<Right, col_major>(&tile, 0u, SK / PER);
  let x = subgroupMatrixMultiplyAccumulate(left, right, Sums());
  subgroupMatrixStore<row_major>(&narrow, 0u, x, SN);
  subgroupMatrixStore<row_major>(&wide, SN, x, WIDE);
  workgroupBarrier();
  for (var n = thread; n < SIZE; n += LANES) {
    let factor = f32(n / SN + 1u);
    narrow[n] *= factor;
    wide[n / SN * WIDE + SN + n % SN] *= factor;
  }
  workgroupBarrier();
  var from_narrow = subgroupMatrixLoad<Sums, row_major>(&narrow, 0u, SN);
  var from_wide = subgroupMatrixLoad<Sums, row_major>(&wide, SN, WIDE);
  subgroupMatrixStore<row_major>(&out, 0u, from_narrow, SN);
  subgroupMatrixStore<row_major>(&out, SIZE, from_wide, SN);
  from_narrow = subgroupMatrixMultiplyAccumulate(left, right, from_narrow);
  from_wide = subgroupMatrixMultiplyAccumulate(left, right, from_wide);
  subgroupMatrixStore<row_major>(&out, 2u * SIZE, from_narrow, SN);
  subgroupMatrixStore<row_major>(&out, 3u * SIZE, from_wide, SN);
  workgroupBarrier();
  for (var n = thread; n < 4u * SIZE; n += LANES) { y[n] = out[n]; }
  subgroupMatrixStore<row_major>(&y, 4u * SIZE, x, SN);
}
