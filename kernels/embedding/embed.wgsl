// Rows of a table by id: y[r] = factor * table[ids[r]], for the ids that lie in this part of the table.
// Ids past the vocabulary give NaN, so that they show in the loss.
//
// Grid: one thread per quad of y, wrapped.

struct Params { rows: u32, quads: u32, first_id: u32, ids_here: u32, vocab_size: u32, factor: f32 }

@group(0) @binding(0) var<storage, read> ids: array<u32>;           // (rows)
@group(0) @binding(1) var<storage, read> table: array<X>;           // (ids_here, C)
@group(0) @binding(2) var<storage, read_write> y: array<Y>;         // (rows, C)
@group(0) @binding(3) var<uniform> p: Params;                       // quads: C / 4

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  let row = i / p.quads;
  if (row >= p.rows) { return; }
  let id = ids[row];
  if (id >= p.vocab_size) {
    y[i] = store_Y(vec4f(bitcast<f32>(id | 0x7fc00000u)));
    return;
  }
  let here = id - p.first_id;  // wraps to a large number for ids before this part
  if (here >= p.ids_here) { return; }
  y[i] = store_Y(p.factor * load_X(table[here * p.quads + i % p.quads]));
}
