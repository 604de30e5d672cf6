// C = alpha A B^T + beta C on matrix units: f16 operands, f32 sums.

enable f16;
enable chromium_experimental_subgroup_matrix;
requires subgroup_id;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // offsets differ between subgroups, not within one

// A workgroup makes a tile of ROWS x COLUMNS; each of its subgroups sums a part of it. Both operands lie in workgroup memory
// with the depth inside, DEPTH at a time, in octets (eight f16, 16 bytes). The loads of a step are under way while the step
// before is multiplied. A thread loads packs: an octet of two lines, or two elements of eight lines of the depth, which it
// turns.
//
// What is no f16 is taken times a power of two for each operand, which brings the largest magnitude in the tiles so far to
// 2^14 .. 2^16: a step with a larger one lowers the power, and the sums with it. So nothing has to be known of the operands.
//
// Before the pair of operands it may sum another, of an inner product: pair 0, whose sums a mask may drop. The powers of
// pair 1 are its own, and the sums of pair 0 are scaled to them.
//
// Grid: x = rows of a tile, y = columns of a tile, z = blocks times parts of the depth.

#needs tile_of product_begin b_begin a_factor store kept mask_start power_of_two exponent_of reciprocal p
#for pair in FIRST_PAIR..2
  #needs RawA_$pair a_fetch_$pair a_most_$pair a_octets_$pair RawB_$pair b_fetch_$pair b_most_$pair b_octets_$pair span_$pair
  #needs A_SCALED_$pair B_SCALED_$pair
#end
#needs Left Right Sums SM SN SK LANES    // of the matrix unit
#needs FIRST_PAIR             // 0 where there is an inner product, else 1
#needs DROPS_INNER            // whether a mask drops elements of that
#needs ROWS COLUMNS DEPTH
#needs SUBGROUPS SUBGROUPS_DOWN SUBGROUPS_ACROSS
#needs DOWN ROUNDS STAGED     // matrices that a subgroup sums: DOWN x ROUNDS * STAGED, of which STAGED go out together
#needs A_PACKS B_PACKS        // that a thread loads for a step

const OCTETS = DEPTH / 8u;
const QUADS = DEPTH / 4u;
const LINE = OCTETS + 1u;           // of a row in workgroup memory: one more keeps rows off the same banks
const SUM_QUADS = STAGED * SN / 4u;
const SUM_LINE = SUM_QUADS + 1u;
const THREADS = LANES * SUBGROUPS;
const PART_ROWS = ROWS / SUBGROUPS_DOWN;
const PART_COLUMNS = COLUMNS / SUBGROUPS_ACROSS;
// Sums of pair 0 are below 2^32 for each number of their depth: this much larger they are still finite.
const MOST_RISE = 80i;

struct Octets { first: vec4u, second: vec4u }

var<workgroup> a_tile: array<vec4u, ROWS * LINE>;
var<workgroup> b_tile: array<vec4u, COLUMNS * LINE>;
var<workgroup> sums: array<vec4f, SUBGROUPS * SM * SUM_LINE>;
// Largest magnitudes of this step's packs and of the next one's, by finite_most.
var<workgroup> most_a: array<atomic<i32>, 2>;
var<workgroup> most_b: array<atomic<i32>, 2>;

// The larger of magnitudes, as their bits and one of the exponent more: what is not finite becomes negative.
fn finite_most(most: vec4i, values: vec4f) -> vec4i {
  return max(most, vec4i((bitcast<vec4u>(values) & vec4u(0x7fffffffu)) + vec4u(0x800000u)));
}

fn largest_of(most: vec4i) -> i32 {
  return max(max(most.x, most.y), max(most.z, most.w));
}

// What an operand with this finite_most is taken times, given what it was before: 0 where there was nothing but 0.
fn room_for(most: i32, up: f32) -> f32 {
  let bits = u32(max(most, 0x800000)) - 0x800000u;
  let fits = bitcast<f32>(bits) * up < 65504.0 && (up > 0.0 || bits == 0u);
  return select(power_of_two(141 - i32(bits >> 23u)), up, fits);
}

// By what the power of two of sums rises where their operands' powers become the next ones.
fn rise_of(a_up: f32, b_up: f32, next_a_up: f32, next_b_up: f32) -> i32 {
  return exponent_of(next_a_up) + exponent_of(next_b_up) - exponent_of(a_up) - exponent_of(b_up);
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  b_begin(thread);
  let tile = tile_of(group, groups);
  product_begin(tile);
  let part_row = subgroup / SUBGROUPS_ACROSS * PART_ROWS;
  let part_column = subgroup % SUBGROUPS_ACROSS * PART_COLUMNS;
  let first_row = tile.x * ROWS + part_row;
  let first_quad = (tile.y * COLUMNS + part_column) / 4u;
  let base = subgroup * SM * SUM_LINE;
  // 0 while there is nothing but 0.
  var a_up = 0.0;
  var b_up = 0.0;
  var slot = 0u;
  #for i in 0..DOWN
    #for g in 0..ROUNDS
      #for j in 0..STAGED
        var sum_$i_$g_$j = Sums();
      #end
    #end
  #end
  #for n in 0..A_PACKS
    let a_twin_$n = tile.x * (ROWS / 2u) + (thread + $nu * THREADS) / OCTETS;
    let a_octet_$n = (thread + $nu * THREADS) % OCTETS;
  #end
  #for n in 0..B_PACKS
    let b_twin_$n = tile.y * (COLUMNS / 2u) + (thread + $nu * THREADS) / OCTETS;
    let b_octet_$n = (thread + $nu * THREADS) % OCTETS;
  #end
  #for pair in FIRST_PAIR..2
    {
      let span = span_$pair(tile);
      // Powers chosen for this pair; 0 until there are.
      var own_a_up = 0.0;
      var own_b_up = 0.0;
      if ($pair == FIRST_PAIR) {
        a_up = select(1.0, 0.0, A_SCALED_$pair);
        b_up = select(1.0, 0.0, B_SCALED_$pair);
      }
      #for n in 0..A_PACKS
        var a_next_$n = RawA_$pair();
      #end
      #for n in 0..B_PACKS
        var b_next_$n = RawB_$pair();
      #end
      // The first turn only loads.
      for (var quad = span.x; quad < span.y + QUADS; quad += QUADS) {
        let octet = quad / 2u;
        if (quad > span.x) {
          // Round what was loaded into the tiles.
          workgroupBarrier();
          if (A_SCALED_$pair || B_SCALED_$pair || $pair > FIRST_PAIR) {
            own_a_up = room_for(atomicLoad(&most_a[slot]), own_a_up);
            own_b_up = room_for(atomicLoad(&most_b[slot]), own_b_up);
            var next_a_up = select(1.0, select(a_up, own_a_up, own_a_up > 0.0), A_SCALED_$pair);
            var next_b_up = select(1.0, select(b_up, own_b_up, own_b_up > 0.0), B_SCALED_$pair);
            if (next_a_up != a_up || next_b_up != b_up) {
              // Without both there are no sums.
              var factor = 0.0;
              if (a_up > 0.0 && b_up > 0.0) {
                if ($pair > FIRST_PAIR && (A_SCALED_$pair || B_SCALED_$pair)) {
                  // Much smaller values than those of the pair before take part in fewer bits.
                  let down = power_of_two(min(0, MOST_RISE - rise_of(a_up, b_up, next_a_up, next_b_up)));
                  if (A_SCALED_$pair) { next_a_up *= down; } else { next_b_up *= down; }
                  own_a_up = min(own_a_up, next_a_up);
                  own_b_up = min(own_b_up, next_b_up);
                }
                let rise = rise_of(a_up, b_up, next_a_up, next_b_up);
                factor = select(power_of_two(rise), 0.0, rise < -126);
              }
              #for i in 0..DOWN
                #for g in 0..ROUNDS
                  #for j in 0..STAGED
                    sum_$i_$g_$j = subgroupMatrixScalarMultiply(sum_$i_$g_$j, factor);
                  #end
                #end
              #end
              a_up = next_a_up;
              b_up = next_b_up;
            }
            slot = 1u - slot;
            if (thread == 0u) {
              atomicStore(&most_a[slot], 0);
              atomicStore(&most_b[slot], 0);
            }
          }
          #for n in 0..A_PACKS
            {
              let octets = a_octets_$pair(a_next_$n, a_up, a_twin_$n, octet - OCTETS + a_octet_$n);
              let at = (thread + $nu * THREADS) / OCTETS * 2u * LINE + a_octet_$n;
              a_tile[at] = octets.first;
              a_tile[at + LINE] = octets.second;
            }
          #end
          #for n in 0..B_PACKS
            {
              let octets = b_octets_$pair(b_next_$n, b_up, b_twin_$n, octet - OCTETS + b_octet_$n);
              let at = (thread + $nu * THREADS) / OCTETS * 2u * LINE + b_octet_$n;
              b_tile[at] = octets.first;
              b_tile[at + LINE] = octets.second;
            }
          #end
          workgroupBarrier();
        }
        // Load the next step.
        #for n in 0..A_PACKS
          a_next_$n = a_fetch_$pair(a_twin_$n, octet + a_octet_$n, span.y);
        #end
        #for n in 0..B_PACKS
          b_next_$n = b_fetch_$pair(b_twin_$n, octet + b_octet_$n, span.y);
        #end
        if (quad > span.x) {
          // Multiply.
          for (var k = 0u; k < DEPTH; k += SK) {
            #for i in 0..DOWN
              let left_$i = subgroupMatrixLoad<Left, row_major>(&a_tile, (part_row + $iu * SM) * LINE + k / 8u, LINE);
            #end
            #for g in 0..ROUNDS
              #for j in 0..STAGED
                let right_$g_$j = subgroupMatrixLoad<Right, col_major>(
                  &b_tile, (part_column + ($gu * STAGED + $ju) * SN) * LINE + k / 8u, LINE);
                #for i in 0..DOWN
                  sum_$i_$g_$j = subgroupMatrixMultiplyAccumulate(left_$i, right_$g_$j, sum_$i_$g_$j);
                #end
              #end
            #end
          }
        }
        if (A_SCALED_$pair) {
          var most = vec4i();
          #for n in 0..A_PACKS
            most = a_most_$pair(most, a_next_$n);
          #end
          let largest = subgroupMax(largest_of(most));
          if (lane == 0u) { atomicMax(&most_a[slot], largest); }
        }
        if (B_SCALED_$pair) {
          var most = vec4i();
          #for n in 0..B_PACKS
            most = b_most_$pair(most, b_next_$n);
          #end
          let largest = subgroupMax(largest_of(most));
          if (lane == 0u) { atomicMax(&most_b[slot], largest); }
        }
      }
      if (DROPS_INNER && $pair == 0 && span.x < span.y) {
        // The sums of matrices go through workgroup memory, since only whole matrices have an address.
        #for i in 0..DOWN
          #for g in 0..ROUNDS
            workgroupBarrier();
            #for j in 0..STAGED
              subgroupMatrixStore<row_major>(&sums, base + $ju * SN / 4u, sum_$i_$g_$j, SUM_LINE);
            #end
            workgroupBarrier();
            for (var n = lane; n < SM * SUM_QUADS; n += LANES) {
              let at = base + n / SUM_QUADS * SUM_LINE + n % SUM_QUADS;
              let row = first_row + $iu * SM + n / SUM_QUADS;
              let quad = first_quad + $gu * SUM_QUADS + n % SUM_QUADS;
              sums[at] = select(vec4f(), sums[at], kept(mask_start(), row * p.c_stride + quad));
            }
            workgroupBarrier();
            #for j in 0..STAGED
              sum_$i_$g_$j = subgroupMatrixLoad<Sums, row_major>(&sums, base + $ju * SN / 4u, SUM_LINE);
            #end
          #end
        #end
      }
    }
  #end
  // Write, as for a mask.
  #for i in 0..DOWN
    #for g in 0..ROUNDS
      workgroupBarrier();
      #for j in 0..STAGED
        subgroupMatrixStore<row_major>(&sums, base + $ju * SN / 4u, sum_$i_$g_$j, SUM_LINE);
      #end
      workgroupBarrier();
      for (var n = lane; n < SM * SUM_QUADS; n += LANES) {
        let row = first_row + $iu * SM + n / SUM_QUADS;
        store(
          tile.z,
          row,
          first_quad + $gu * SUM_QUADS + n % SUM_QUADS,
          sums[base + n / SUM_QUADS * SUM_LINE + n % SUM_QUADS] * reciprocal(a_up) * reciprocal(b_up) * a_factor(row),
        );
      }
    #end
  #end
}
