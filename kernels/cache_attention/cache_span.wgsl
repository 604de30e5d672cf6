// Which keys and queries a workgroup of the split kernels has: the keys of one span of one sequence's cache, and QUERIES
// of the query heads (of all its new rows) that share a kv head.

#needs QUERIES
#needs HEAD    // elements of C of a head: its quads, and its scale where it has one

struct Params {
  rows: u32,            // query rows of all sequences
  per_sequence: u32,    // query rows of one
  heads: u32,
  kv_heads: u32,
  capacity: u32,        // rows of the cache for a sequence
  k_start: u32,         // first row of the bound part of the cache
  k_rows: u32,
  span: u32,            // keys of a split
  first_split: u32,     // number of the part's first split among all
  window: u32,          // most keys that a query sees, itself included
  scale: f32,
  cap: f32,             // soft cap of the scores
}
@group(0) @binding(0) var<storage, read> q: array<X>;                   // (rows, heads, D4)
@group(0) @binding(1) var<storage, read> k: array<C>;                   // (k_rows, kv_heads, HEAD)
@group(0) @binding(2) var<storage, read> v: array<C>;
@group(0) @binding(3) var<storage, read> positions: array<u32>;         // (rows)
@group(0) @binding(6) var<uniform> p: Params;

// Score of a key that a query may not see.
const MASKED = -1e30;

struct Span {
  first_row: u32,    // of q: the sequence's first
  kv_head: u32,
  first_query: u32,  // among the per_sequence * heads / kv_heads that share the kv head
  first_key: u32,    // position in the sequence of the first key that any query sees
  end_key: u32,      // past the last key that any query sees
  at: u32,           // row of the bound part that position 0 would have; may wrap below 0
}

fn span_of(group: vec3u) -> Span {
  let query_groups = (p.per_sequence * (p.heads / p.kv_heads) + QUERIES - 1u) / QUERIES;
  let base = group.z * p.capacity;
  let begin = max(p.k_start, base) - base + group.x * p.span;
  let end = max(min(p.k_start + p.k_rows, base + p.capacity), base) - base;
  let first_row = group.z * p.per_sequence;
  let seen = positions[first_row + p.per_sequence - 1u] + 1u;
  let first_seen = positions[first_row] + 1u;
  return Span(
    first_row,
    group.y / query_groups,
    group.y % query_groups * QUERIES,
    max(begin, first_seen - min(first_seen, p.window)),
    min(min(begin + p.span, end), seen),
    base - p.k_start,
  );
}

// Row of q and its head for query `i` of the workgroup; those past the end repeat the last one.
fn query_of(s: Span, i: u32) -> vec2u {
  let share = p.heads / p.kv_heads;
  let index = min(s.first_query + i, p.per_sequence * share - 1u);
  return vec2u(s.first_row + index / share, s.kv_head * share + index % share);
}

// Whether the query at a position sees the key at another.
fn sees(position: u32, key: u32) -> bool {
  return key <= position && position - key < p.window;
}

fn has_query(s: Span, i: u32) -> bool {
  return s.first_query + i < p.per_sequence * (p.heads / p.kv_heads);
}

// Where the key at a position begins: its quad 0.
fn key_at(s: Span, key: u32) -> u32 {
  return ((s.at + key) * p.kv_heads + s.kv_head) * HEAD;
}

fn pair_of(query: vec2u) -> u32 {
  return query.x * p.heads + query.y;
}
