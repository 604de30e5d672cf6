// What a product is added to: D, of the shape of C.

@group(0) @binding(10) var<storage, read> d: array<D>;

fn addend(at: u32) -> vec4f { return load_D(d[at]); }
