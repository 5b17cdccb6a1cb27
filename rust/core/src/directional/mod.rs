//! Distributions on the unit sphere.

pub mod mixture;
pub mod vmf;
