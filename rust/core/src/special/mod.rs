//! Logarithms of modified Bessel functions, their ratios and derivatives.

mod broadcast;
mod debye_table;
mod gamma;
mod jet;
mod large;
pub(crate) mod math;
mod small_i;
mod small_k;
