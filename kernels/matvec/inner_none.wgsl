// No inner product.

fn inner_sum(row: u32, nq: u32, first: u32, step: u32) -> vec4f {
  return vec4f();
}
