// Factors that leave the other as it is, or add up its blocks where it is deeper than they are wide; and known integers.

#needs SM SN SK LANES

var<workgroup> fold_left: array<f16, SM * SK>;   // by rows
var<workgroup> fold_right: array<f16, SN * SK>;  // by columns

fn fold(a: u32, b: u32, a_size: u32, b_size: u32) -> f16 {
  return f16(select(a % b_size == b, b % a_size == a, a_size <= b_size));
}

fn make_folds(thread: u32) {
  for (var n = thread; n < SM * SK; n += LANES) { fold_left[n] = fold(n / SK, n % SK, SM, SK); }
  for (var n = thread; n < SN * SK; n += LANES) { fold_right[n] = fold(n / SK, n % SK, SN, SK); }
}

// The integer of an element, below 251: exact in f16.
fn value_of(element: u32, seed: u32) -> f32 {
  return f32((7u * element + 3u + 97u * seed) % 251u);
}
