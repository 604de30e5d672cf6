// Whether f16 written one by one is what was written: read back by other lanes, as words, and as a matrix.

enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // places are the same in all lanes

#needs Left Right Sums SM SN SK LANES    // of the matrix unit
#needs value_of fold_right make_folds

@group(0) @binding(0) var<storage, read_write> y: array<f32>;  // (read back, in pairs, as a matrix; SM, 2 SN)

const LINE = 2u * SK + 8u;
const SIZE = SM * 2u * SN;

var<workgroup> halves: array<f16, SM * LINE>;  // SM lines of 2 SK
var<workgroup> sums: array<f32, SIZE>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) thread: u32) {
  make_folds(thread);
  for (var n = thread; n < SM * SK / 2u; n += LANES) {
    let row = n / (SK / 2u);
    let quad = n % (SK / 2u);
    #for e in 0..4
      halves[row * LINE + 4u * quad + $eu] = f16(value_of(row * 2u * SK + 4u * quad + $eu, 0u));
    #end
  }
  workgroupBarrier();
  for (var n = LANES - 1u - thread; n < SM * 2u * SK; n += LANES) { y[n] = f32(halves[n / (2u * SK) * LINE + n % (2u * SK)]); }
  for (var n = LANES - 1u - thread; n < SM * SK; n += LANES) {
    let at = n / SK * LINE + 2u * (n % SK);
    let pair = unpack2x16float(bitcast<u32>(vec2h(halves[at], halves[at + 1u])));
    y[SM * 2u * SK + 2u * n] = pair.x;
    y[SM * 2u * SK + 2u * n + 1u] = pair.y;
  }
  let right = subgroupMatrixLoad<Right, col_major>(&fold_right, 0u, SK);
  for (var j = 0u; j < 2u; j++) {
    let left = subgroupMatrixLoad<Left, row_major>(&halves, j * SK, LINE);
    subgroupMatrixStore<row_major>(&sums, j * SN, subgroupMatrixMultiplyAccumulate(left, right, Sums()), 2u * SN);
  }
  workgroupBarrier();
  for (var n = thread; n < SIZE; n += LANES) { y[2u * SM * 2u * SK + n] = sums[n]; }
}
