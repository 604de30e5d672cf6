// The scale of a block of the one matrix that there is.

#needs nf4_scales nf4_scale_of

fn nf4_scale(block: u32) -> f32 {
  return nf4_scale_of(nf4_scales(0u, 0u), block, block);
}
