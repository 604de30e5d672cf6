// The mask of a product without dropout.

fn kept(stream: u32, quad: u32) -> vec4<bool> { return vec4<bool>(true); }

fn mask_words(stream: u32, quad: u32) -> vec2u { return vec2u(); }

fn kept_pair(word: u32) -> vec2<bool> { return vec2<bool>(true); }
