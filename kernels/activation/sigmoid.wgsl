// 1 / (1 + exp(-x)). The bound keeps the exponential finite; what it cuts off is below 1e-38.
fn sigmoid(x: vec4f) -> vec4f {
  return 1.0 / (1.0 + exp(min(-x, vec4f(88.0))));
}
