// Adds to the gradient of each id those of the rows that used it, times `factor`, in the order of the rows: no atomics.
// `lists` begins with three numbers for each id: its row in this part of the table, and the begin and end of its
// list of rows further on in `lists`.
//
// Grid: one workgroup for each id and each 64 quads of the width, wrapped.

struct Params { ids: u32, quads: u32, column_groups: u32, factor: f32 }

@group(0) @binding(0) var<storage, read> lists: array<u32>;
@group(0) @binding(1) var<storage, read> dx: array<X>;                    // (rows, C)
@group(0) @binding(2) var<storage, read_write> d_table: array<vec4f>;     // (V, C)
@group(0) @binding(3) var<uniform> p: Params;                             // quads: C / 4

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let at = group.y * groups.x + group.x;
  let id = at / p.column_groups;
  let q = (at % p.column_groups) * 64u + lane;
  if (id >= p.ids || q >= p.quads) { return; }
  var sum = vec4f();
  for (var i = lists[3u * id + 1u]; i < lists[3u * id + 2u]; i++) {
    sum += load_X(dx[lists[i] * p.quads + q]);
  }
  d_table[lists[3u * id] * p.quads + q] += p.factor * sum;
}
