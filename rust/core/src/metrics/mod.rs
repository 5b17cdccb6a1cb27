//! Distances between samples that are sums of a kernel over all pairs of points.
//!
//! The energy distance and the squared maximum mean discrepancy both are
//! `2 xy - xx - yy`, up to sign, of the three [`PairSums`]. Cost O((n + m)^2 d) time, and memory for
//! the points alone: no matrix of pairs is ever held.

mod pairs;

pub use pairs::{Gradient, Kernel, PairSums, Sample, gradient, pair_sums};
