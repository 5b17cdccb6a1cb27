//! Distributions on the unit sphere.

pub mod vmf;
