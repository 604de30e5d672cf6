// Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a random
// function of a key and a counter, with no state. shared/threefry.ts is the same on the host.

fn threefry(key: vec2u, counter: vec2u) -> vec2u {
  let k = vec3u(key, 0x1bd11bdau ^ key.x ^ key.y);
  var x = counter + k.xy;
  x = threefry_round(threefry_round(threefry_round(threefry_round(x, 13u), 15u), 26u), 6u) + vec2u(k.y, k.z + 1u);
  x = threefry_round(threefry_round(threefry_round(threefry_round(x, 17u), 29u), 16u), 24u) + vec2u(k.z, k.x + 2u);
  x = threefry_round(threefry_round(threefry_round(threefry_round(x, 13u), 15u), 26u), 6u) + vec2u(k.x, k.y + 3u);
  x = threefry_round(threefry_round(threefry_round(threefry_round(x, 17u), 29u), 16u), 24u) + vec2u(k.y, k.z + 4u);
  x = threefry_round(threefry_round(threefry_round(threefry_round(x, 13u), 15u), 26u), 6u) + vec2u(k.z, k.x + 5u);
  return x;
}

fn threefry_round(x: vec2u, rotation: u32) -> vec2u {
  let sum = x.x + x.y;
  return vec2u(sum, ((x.y << rotation) | (x.y >> (32u - rotation))) ^ sum);
}

// Four random words for the four elements of a quad. Its number is quad.x + 2^32 * quad.y, quad.y below 2^31.
fn random_words(key: vec2u, quad: vec2u) -> vec4u {
  return vec4u(threefry(key, vec2u(quad.x, 2u * quad.y)), threefry(key, vec2u(quad.x, 2u * quad.y + 1u)));
}
