// The mask of a product without dropout.

fn kept(stream: u32, quad: u32) -> vec4<bool> { return vec4<bool>(true); }

fn kept_half(stream: u32, quad: u32, half: u32) -> vec2<bool> { return vec2<bool>(true); }
