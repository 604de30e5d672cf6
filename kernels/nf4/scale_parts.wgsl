// The scale of a block in 8 bits, of matrices one behind the other that were quantised each for itself: each has an offset
// and scales of its own.

#needs nf4_scales nf4_scale_of
#needs BLOCKS    // of one matrix

fn nf4_scale(block: u32) -> f32 {
  let first = block / BLOCKS * (1u + (BLOCKS + 255u) / 256u);
  return nf4_scale_of(nf4_scales(first, 0u), block, block % BLOCKS);
}
