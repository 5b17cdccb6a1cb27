//! Tall data made small: scores of rows, draws of them, and sketches.
