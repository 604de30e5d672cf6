// Sums of a split of a query's keys, for cache_combine.wgsl to put together with those of other splits.

#needs pair_of
#needs D4    // quads of a head

@group(0) @binding(4) var<storage, read_write> parts: array<vec4f>;     // (splits, rows, heads, D4)
@group(0) @binding(5) var<storage, read_write> stats: array<vec2f>;     // (splits, rows, heads): maximum, sum

fn write_quad(group: vec3u, query: vec2u, quad: u32, values: vec4f, most: f32, sum: f32) {
  let part = (p.first_split + group.x) * p.rows * p.heads + pair_of(query);
  parts[part * D4 + quad] = values;
  if (quad == 0u) {
    stats[part] = vec2f(most, sum);
  }
}
