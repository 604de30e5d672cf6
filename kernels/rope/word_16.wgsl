// A word of two 16-bit elements: half of the quad that the format's functions convert.

alias Word = u32;

fn load_word(word: Word) -> vec2f { return load_X(vec2u(word, 0u)).xy; }

fn store_word(v: vec2f) -> Word { return store_X(vec4f(v, 0.0, 0.0)).x; }
