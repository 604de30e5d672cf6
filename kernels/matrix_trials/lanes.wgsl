// Whether lanes are numbered as kernels count on, and shuffles reach the lane they name.

requires subgroup_id;

#needs LANES SUBGROUPS SHUFFLES

@group(0) @binding(0) var<storage, read_write> y: array<f32>;  // (numbers, then shuffles by 1, 2, 4 ...; SUBGROUPS, LANES)

@compute @workgroup_size(LANES * SUBGROUPS)
fn main(
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  y[thread] = f32(subgroup * LANES + lane);
  #for s in 0..SHUFFLES
    y[($su + 1u) * LANES * SUBGROUPS + thread] = f32(subgroupShuffleXor(lane, 1u << $su));
  #end
}
