//! I_v(x), its ratio and 0F1 for hypot(v, x) < 22.
