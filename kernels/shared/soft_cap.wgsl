// cap * tanh(y / cap): within -cap to cap, and y itself near 0. The exponential loses what is near 0, so there it is the
// series of tanh; beyond 10 it is 1 in f32.
fn soft_cap(y: vec4f, cap: f32) -> vec4f {
  let u = y / cap;
  let u2 = u * u;
  let near = y * (1.0 + u2 * (-0.3333333333 + u2 * (0.1333333333 - u2 * 0.0539682540)));
  let a = min(abs(u), vec4f(10.0));
  let far = sign(u) * cap * (1.0 - 2.0 / (exp(2.0 * a) + 1.0));
  // A comparison with NaN is false, and min may lose it: the series keeps it.
  return select(near, far, abs(u) > vec4f(0.2));
}
