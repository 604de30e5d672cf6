// What is multiplied: x normed by RMSNorm, norm(x)[c] = x[c] * rstd * (offset + w[c]). The root of a row is a factor of its
// sums, so that nothing waits for it: the squares are summed as x is brought, each quad once by some thread. Then all share
// what they have, FOLDERS of them sum a part each, and whoever asks for the factor sums the parts, with a barrier between
// each.   Zhang & Sennrich 2019, eq. 4.

#needs x_at
#needs THREADS M

const FOLDERS = 16u;

@group(0) @binding(10) var<storage, read> norm_weight: array<vec4f>;   // (depth)

var<private> squares: array<f32, M>;
var<workgroup> shared_squares: array<f32, M * THREADS>;
var<workgroup> folded_squares: array<f32, M * FOLDERS>;

// Quads past the end are 0.
fn x_quad(row: u32, q: u32) -> vec4f {
  let quad = select(vec4f(), load_X(x[x_at(row, q)]), q < p.depth);
  squares[row] += dot(quad, quad);
  return quad * (p.offset + norm_weight[min(q, p.depth - 1u)]);
}

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
  return inverseSqrt(sum / f32(4u * p.depth) + p.eps);
}
