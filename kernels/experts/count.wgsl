// Rows of each expert, into the table's counts.
//
// Grid: one workgroup of 64 per expert.

#needs EXPERTS_AT COUNTS_AT

struct Params { pairs: u32 }

@group(0) @binding(0) var<storage, read_write> table: array<u32>;
@group(0) @binding(1) var<uniform> p: Params;

var<workgroup> counts: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  var count = 0u;
  for (var pair = lane; pair < p.pairs; pair += 64u) {
    count += u32(table[EXPERTS_AT * p.pairs + pair] == group.x);
  }
  counts[lane] = count;
  workgroupBarrier();
  if (lane == 0u) {
    for (var i = 1u; i < 64u; i++) {
      count += counts[i];
    }
    table[COUNTS_AT * p.pairs + group.x] = count;
  }
}
