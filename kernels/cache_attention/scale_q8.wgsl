// Scales of keys and values in a cache of 8 bits.

#needs D4

fn k_scale(at: u32) -> f32 { return bitcast<f32>(k[at + D4]); }
fn v_scale(at: u32) -> f32 { return bitcast<f32>(v[at + D4]); }
