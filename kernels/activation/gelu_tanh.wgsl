// GELU by a tanh: gelu(x) = x / 2 * (1 + tanh(u)) = x * sigmoid(2 u), u = sqrt(2 / pi) * (x + 0.044715 x^3).
// Hendrycks & Gimpel 2016.

#needs sigmoid

const TWICE_ROOT = 1.5957691216;  // 2 sqrt(2 / pi)

// Beyond this the sigmoid is 0 or 1, and the bound keeps the cube finite.
fn bounded(x: vec4f) -> vec4f {
  return clamp(x, vec4f(-20.0), vec4f(20.0));
}

fn gelu(x: vec4f) -> vec4f {
  let b = bounded(x);
  return x * sigmoid(TWICE_ROOT * b * (1.0 + 0.044715 * b * b));
}

fn gelu_gradient(x: vec4f) -> vec4f {
  let b = bounded(x);
  let s = sigmoid(TWICE_ROOT * b * (1.0 + 0.044715 * b * b));
  return s + b * s * (1.0 - s) * TWICE_ROOT * (1.0 + 3.0 * 0.044715 * b * b);
}
