// Which tile a workgroup makes. They start in the order of their numbers: those of a band one below the other, so that
// they find B in the cache, then its next column, so that C is written in whole pages and the band's rows of A stay.

#needs p

fn tile_of(group: vec3u, groups: vec3u) -> vec3u {
  let number = group.y * groups.x + group.x;
  let band_tiles = p.band * groups.y;
  let first_row = number / band_tiles * p.band;
  let rows = min(p.band, groups.x - first_row);
  let within = number % band_tiles;
  return vec3u(first_row + within % rows, within / rows, group.z);
}
