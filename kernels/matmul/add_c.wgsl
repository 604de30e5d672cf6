// What a product is added to: what C holds.

fn addend(at: u32) -> vec4f { return load_C(c[at]); }
