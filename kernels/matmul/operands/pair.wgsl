// Pair 1 of the operands that a tile sums: the product's own.

#needs depth_of QuadB b_fetch_quad b_value a_quad

alias A_1 = A;
alias QuadB_1 = QuadB;

fn a_quad_1(iq: u32, e: u32, rq: u32) -> A_1 { return a_quad(iq, e, rq); }

fn load_A_1(quad: A_1) -> vec4f { return load_A(quad); }

fn b_fetch_quad_1(quad: ptr<function, QuadB_1>, jq: u32, e: u32, rq: u32) { b_fetch_quad(quad, jq, e, rq); }

fn b_value_1(quad: QuadB_1) -> vec4f { return b_value(quad); }

fn span_1(tile: vec3u) -> vec2u { return depth_of(tile); }
