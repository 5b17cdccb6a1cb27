//! K_v(x) and the Matern correlation for hypot(v, x) < 22.
