// Whether sums begin at zero each time, in every way of saying so: four turns, each with a product of its own.

enable f16;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // places are the same in all lanes

#needs Left Right Sums SM SN SK LANES    // of the matrix unit
#needs tile fill PER
#needs fold_left make_folds

struct Params { turns: u32 }
@group(0) @binding(0) var<storage, read_write> y: array<f32>;  // (ways, SM, 4 SN)
@group(0) @binding(1) var<uniform> p: Params;

const LINE = 4u * SN;
const WAY = SM * LINE;

var<workgroup> sums: array<f32, 4u * WAY>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) thread: u32) {
  fill(thread, 0u);
  make_folds(thread);
  workgroupBarrier();
  let left = subgroupMatrixLoad<Left, row_major>(&fold_left, 0u, SK);
  for (var j = 0u; j < p.turns; j++) {
    var x = Sums();
    x = subgroupMatrixMultiplyAccumulate(left, subgroupMatrixLoad<Right, col_major>(&tile, j * SN * SK / PER, SK / PER), x);
    subgroupMatrixStore<row_major>(&sums, j * SN, x, LINE);
  }
  for (var j = 0u; j < p.turns; j++) {
    var x = Sums(0.0);
    x = subgroupMatrixMultiplyAccumulate(left, subgroupMatrixLoad<Right, col_major>(&tile, j * SN * SK / PER, SK / PER), x);
    subgroupMatrixStore<row_major>(&sums, WAY + j * SN, x, LINE);
  }
  for (var j = 0u; j < p.turns; j++) {
    let x = subgroupMatrixMultiply<f32>(left, subgroupMatrixLoad<Right, col_major>(&tile, j * SN * SK / PER, SK / PER));
    subgroupMatrixStore<row_major>(&sums, 2u * WAY + j * SN, x, LINE);
  }
  var outside = Sums();
  for (var j = 0u; j < p.turns; j++) {
    outside = Sums();
    outside = subgroupMatrixMultiplyAccumulate(
      left, subgroupMatrixLoad<Right, col_major>(&tile, j * SN * SK / PER, SK / PER), outside);
    subgroupMatrixStore<row_major>(&sums, 3u * WAY + j * SN, outside, LINE);
  }
  workgroupBarrier();
  for (var n = thread; n < 4u * WAY; n += LANES) { y[n] = sums[n]; }
}
