// What is multiplied: x normed by RMSNorm, norm(x)[c] = x[c] * rstd * (offset + w[c]). The root of a row is a factor of its
// sums, so it is not waited for: the squares are summed as x is brought, each quad once by some thread.
// Zhang & Sennrich 2019, eq. 4.

#needs M

@group(0) @binding(10) var<storage, read> norm_weight: array<vec4f>;   // (depth)

var<private> squares: array<f32, M>;    // by row, of the quads that this thread has brought

// Quads past the end are 0.
fn x_quad(row: u32, q: u32) -> vec4f {
  let quad = select(vec4f(), load_X(x[x_at(row, q)]), q < p.depth);
  squares[row] += dot(quad, quad);
  return quad * (p.offset + norm_weight[min(q, p.depth - 1u)]);
}

fn rstd_of(sum: f32) -> f32 {
  return inverseSqrt(sum / f32(4u * p.depth) + p.eps);
}
