// Sums of all keys of a query: what attention gives.

#needs pair_of
#needs D4    // quads of a head

@group(0) @binding(4) var<storage, read_write> o: array<X>;    // (rows, heads, D4)

fn write_quad(group: vec3u, query: vec2u, quad: u32, values: vec4f, most: f32, sum: f32) {
  o[pair_of(query) * D4 + quad] = store_X(values / sum);
}
