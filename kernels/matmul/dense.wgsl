// Operand B as it lies in memory.

@group(0) @binding(2) var<storage, read> b: array<B>;

fn b_begin(thread: u32) {}
