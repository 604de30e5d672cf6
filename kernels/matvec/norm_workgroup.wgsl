// Puts together the squares of the threads of a workgroup: all share what they have, FOLDERS of them sum a part each, and
// every thread that asks for the factor sums the parts. A barrier stands between each.

#needs squares rstd_of
#needs THREADS M

const FOLDERS = 16u;

var<workgroup> shared_squares: array<f32, M * THREADS>;
var<workgroup> folded_squares: array<f32, M * FOLDERS>;

fn x_share(thread: u32) {
  #for m in 0..M
    shared_squares[$mu * THREADS + thread] = squares[$m];
  #end
}

fn x_fold(thread: u32) {
  if (thread < FOLDERS) {
    #for m in 0..M
      var sum_$m = 0.0;
      for (var other = thread; other < THREADS; other += FOLDERS) {
        sum_$m += shared_squares[$mu * THREADS + other];
      }
      folded_squares[$mu * FOLDERS + thread] = sum_$m;
    #end
  }
}

fn x_factor(row: u32) -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < FOLDERS; i++) {
    sum += folded_squares[row * FOLDERS + i];
  }
  return rstd_of(sum);
}
