// The activation of SwiGLU's gate: silu(x) = x / (1 + exp(-x)).

#needs sigmoid

fn act(x: vec4f) -> vec4f {
  return x * sigmoid(x);
}
