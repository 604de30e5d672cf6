// Integers in storage, as the host wrote them: eight elements at a time.

const PER = 8u;
@group(0) @binding(1) var<storage, read> tile: array<vec4u>;

fn fill(thread: u32, seed: u32) {}
