// GELU by the normal distribution itself: gelu(x) = x * P(X < x) = x / 2 * (1 + erf(x / sqrt(2))).
// Hendrycks & Gimpel 2016.

// P(X < x). WGSL has no erf: P(X > a) = exp(-a^2 / 2) * t * poly(t) with t = 1 / (1 + 0.4 a / sqrt(2)) for a = |x|. The
// polynomial is a minimax fit made for this file, within 2e-8 of the tail as a share of it; f32 comes within 4e-7.
fn gaussian_below(x: vec4f, density: vec4f) -> vec4f {
  let t = 1.0 / (1.0 + 0.2828427125 * min(abs(x), vec4f(20.0)));
  var sum = vec4f(-0.0114200137);
  sum = sum * t + 0.0810203166;
  sum = sum * t - 0.208039609;
  sum = sum * t + 0.219930254;
  sum = sum * t - 0.0987209708;
  sum = sum * t + 0.11346066;
  sum = sum * t + 0.0723551334;
  sum = sum * t + 0.105916423;
  sum = sum * t + 0.112652989;
  sum = sum * t + 0.112844827;
  let tail = density * sum * t;
  return select(1.0 - tail, tail, x < vec4f());
}

// exp(-x^2 / 2); the bound keeps the square finite, and is 0 long before.
fn gaussian(x: vec4f) -> vec4f {
  let a = min(abs(x), vec4f(20.0));
  return exp(-0.5 * a * a);
}

fn gelu(x: vec4f) -> vec4f {
  return x * gaussian_below(x, gaussian(x));
}

fn gelu_gradient(x: vec4f) -> vec4f {
  let density = gaussian(x);
  return gaussian_below(x, density) + clamp(x, vec4f(-20.0), vec4f(20.0)) * density * 0.3989422804;  // 1 / sqrt(2 pi)
}
