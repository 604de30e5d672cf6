// C = alpha A B^T + beta C on matrix units: f16 operands, f32 sums.

enable f16;
enable chromium_experimental_subgroup_matrix;
requires subgroup_id;
diagnostic(off, chromium.subgroup_matrix_uniformity);  // offsets differ between subgroups, not within one

// A workgroup makes a tile of ROWS x COLUMNS; each of its subgroups sums a part of it. Both operands lie in workgroup memory with the depth inside, DEPTH at a time, in octets (eight f16, 16 bytes). The loads of a step are
// under way while the step before is multiplied. A thread loads packs: an octet of two lines, or two elements of eight
// lines of the depth, which it turns.
//
// What is no f16 is taken times a power of two for each operand, which brings the largest magnitude in the tiles so far to
// 2^14 .. 2^16: a step with a larger one lowers the power, and the sums with it. So nothing has to be known of the operands.
//
// Grid: x = rows of a tile, y = columns of a tile, z = parts of the depth.

#needs b_begin RawA RawB a_fetch b_fetch a_most b_most a_octets b_octets a_factor store tile_of
#needs Sums SM SN SK LANES    // of the matrix unit
#needs ROWS COLUMNS DEPTH
#needs SUBGROUPS SUBGROUPS_DOWN SUBGROUPS_ACROSS
#needs DOWN ROUNDS STAGED     // matrices that a subgroup sums: DOWN x ROUNDS * STAGED, of which STAGED go out together
#needs A_PACKS B_PACKS        // that a thread loads for a step
#needs A_SCALED B_SCALED

const OCTETS = DEPTH / 8u;
const QUADS = DEPTH / 4u;
const LINE = OCTETS + 1u;           // of a row in workgroup memory: one more keeps rows off the same banks
const SUM_LINE = STAGED * SN / 4u + 1u;
const THREADS = LANES * SUBGROUPS;
const PART_ROWS = ROWS / SUBGROUPS_DOWN;
const PART_COLUMNS = COLUMNS / SUBGROUPS_ACROSS;

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
  return select(bitcast<f32>(u32(127 + clamp(141 - i32(bits >> 23u), -126, 126)) << 23u), up, fits);
}

// The reciprocal of a power of two, exactly; 0 of 0.
fn reciprocal(power: f32) -> f32 {
  return select(0.0, bitcast<f32>((254u << 23u) - bitcast<u32>(power)), power > 0.0);
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
  let part_row = subgroup / SUBGROUPS_ACROSS * PART_ROWS;
  let part_column = subgroup % SUBGROUPS_ACROSS * PART_COLUMNS;
  let begin = tile.z * p.span;
  let end = min(begin + p.span, p.depth);
  var a_up = select(1.0, 0.0, A_SCALED);
  var b_up = select(1.0, 0.0, B_SCALED);
  var slot = 0u;
  #for i in 0..DOWN
    #for g in 0..ROUNDS
      #for j in 0..STAGED
        var sum_$i_$g_$j = Sums();
      #end
    #end
  #end
  #for n in 0..A_PACKS
    let a_pair_$n = tile.x * (ROWS / 2u) + (thread + $nu * THREADS) / OCTETS;
    let a_octet_$n = begin / 2u + (thread + $nu * THREADS) % OCTETS;
    var a_next_$n = RawA();
  #end
  #for n in 0..B_PACKS
    let b_pair_$n = tile.y * (COLUMNS / 2u) + (thread + $nu * THREADS) / OCTETS;
    let b_octet_$n = begin / 2u + (thread + $nu * THREADS) % OCTETS;
    var b_next_$n = RawB();
  #end
  // The first turn only loads.
  for (var quad = begin; quad < end + QUADS; quad += QUADS) {
    if (quad > begin) {
      // Round what was loaded into the tiles.
      workgroupBarrier();
      if (A_SCALED || B_SCALED) {
        let next_a_up = select(1.0, room_for(atomicLoad(&most_a[slot]), a_up), A_SCALED);
        let next_b_up = select(1.0, room_for(atomicLoad(&most_b[slot]), b_up), B_SCALED);
        if (next_a_up != a_up || next_b_up != b_up) {
          let factor = next_a_up * reciprocal(a_up) * next_b_up * reciprocal(b_up);
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
          let octets = a_octets(a_next_$n, a_up);
          let at = (thread + $nu * THREADS) / OCTETS * 2u * LINE + (thread + $nu * THREADS) % OCTETS;
          a_tile[at] = octets.first;
          a_tile[at + LINE] = octets.second;
        }
      #end
      #for n in 0..B_PACKS
        {
          let octets = b_octets(b_next_$n, b_up);
          let at = (thread + $nu * THREADS) / OCTETS * 2u * LINE + (thread + $nu * THREADS) % OCTETS;
          b_tile[at] = octets.first;
          b_tile[at + LINE] = octets.second;
        }
      #end
      workgroupBarrier();
    }
    // Load the next step.
    #for n in 0..A_PACKS
      a_next_$n = a_fetch(a_pair_$n, a_octet_$n + (quad - begin) / 2u, end);
    #end
    #for n in 0..B_PACKS
      b_next_$n = b_fetch(b_pair_$n, b_octet_$n + (quad - begin) / 2u, end);
    #end
    if (quad > begin) {
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
    if (A_SCALED) {
      var most = vec4i();
      #for n in 0..A_PACKS
        most = a_most(most, a_next_$n);
      #end
      let largest = subgroupMax(largest_of(most));
      if (lane == 0u) { atomicMax(&most_a[slot], largest); }
    }
    if (B_SCALED) {
      var most = vec4i();
      #for n in 0..B_PACKS
        most = b_most(most, b_next_$n);
      #end
      let largest = subgroupMax(largest_of(most));
      if (lane == 0u) { atomicMax(&most_b[slot], largest); }
    }
  }
  // Write. The sums of a matrix go through workgroup memory, since only whole matrices have an address.
  let base = subgroup * SM * SUM_LINE;
  #for i in 0..DOWN
    #for g in 0..ROUNDS
      workgroupBarrier();
      #for j in 0..STAGED
        subgroupMatrixStore<row_major>(&sums, base + $ju * SN / 4u, sum_$i_$g_$j, SUM_LINE);
      #end
      workgroupBarrier();
      for (var n = lane; n < SM * STAGED * SN / 4u; n += LANES) {
        let row = n / (STAGED * SN / 4u);
        let quad = n % (STAGED * SN / 4u);
        let c_row = tile.x * ROWS + part_row + $iu * SM + row;
        store(
          tile.z,
          c_row,
          (tile.y * COLUMNS + part_column + $gu * STAGED * SN) / 4u + quad,
          sums[base + row * SUM_LINE + quad] * reciprocal(a_up) * reciprocal(b_up) * a_factor(c_row),
        );
      }
    #end
  #end
}
