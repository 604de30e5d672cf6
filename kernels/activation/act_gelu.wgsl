// The activation of GEGLU's gate.

#needs gelu

fn act(x: vec4f) -> vec4f {
  return gelu(x);
}
