// A word of two f32 elements.

alias Word = vec2f;

fn load_word(word: Word) -> vec2f { return word; }

fn store_word(v: vec2f) -> Word { return v; }
