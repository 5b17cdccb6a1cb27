//! Kernels for probabilistic modelling.
//!
//! Pure Rust, no `unsafe`, deterministic: the same arguments give the same bits for any number
//! of threads. The Python package `pyprobe` is a thin layer above this crate.
//!
//! | module | what it computes |
//! |---|---|
//! | [`special`] | logarithms of modified Bessel functions, their ratios and derivatives |
//! | [`linalg`] | dense and sparse samples, products with skinny matrices, distances of points |
//! | [`metrics`] | sums over pairs of points: energy distance, maximum mean discrepancy |
//! | [`cluster`] | starts for clusterings and mixtures |
//! | [`directional`] | von Mises-Fisher distributions and their mixtures |
//! | [`transport`] | entropic optimal transport |
//! | [`sketching`] | scores of rows, samples and sketches of tall data |
//! | [`random`] | keyed streams of uniform and normal variates |
//!
//! Every kernel that can run long takes a [`Control`], through which another thread reads its
//! progress and asks it to stop.

pub mod cluster;
mod control;
pub mod directional;
mod error;
pub mod linalg;
mod memory;
pub mod metrics;
pub mod parallel;
pub mod random;
mod real;
mod simd;
pub mod sketching;
pub mod special;
pub mod transport;

pub use ndarray;

pub use control::Control;
pub use error::Error;
pub use real::Real;

/// Runs the example in the README as a test of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
