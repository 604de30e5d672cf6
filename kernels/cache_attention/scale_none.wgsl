// Keys and values in a cache of floats: quads of format C, not scaled.

#needs D4    // quads of a head

const HEAD = D4;
fn k_scale(at: u32) -> f32 { return 1.0; }
fn v_scale(at: u32) -> f32 { return 1.0; }
