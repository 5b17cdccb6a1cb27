//! The uniform expansion in 1/s, s = hypot(v, x).
