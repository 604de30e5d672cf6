// The soft cap of attention scores, before the mask; nothing unless CAPPED.

#needs soft_cap CAPPED

fn capped(scores: vec4f) -> vec4f {
  if (CAPPED) { return soft_cap(scores, p.cap); }
  return scores;
}

// The gradient of scores from that of what the cap makes of them.
fn before_cap(gradient: vec4f, capped_scores: vec4f) -> vec4f {
  if (CAPPED) { return gradient * (1.0 - (capped_scores / p.cap) * (capped_scores / p.cap)); }
  return gradient;
}

fn capped_one(score: f32) -> f32 {
  if (CAPPED) { return soft_cap(vec4f(score), p.cap).x; }
  return score;
}

fn before_cap_one(gradient: f32, capped_score: f32) -> f32 {
  return before_cap(vec4f(gradient), vec4f(capped_score)).x;
}
