//! Kernels for probabilistic modelling.
//!
//! Pure Rust, no `unsafe`, deterministic: the same arguments give the same bits for any number
//! of threads. The Python package `pyprobe` is a thin layer above this crate.
//!
//! | module | what it computes |
//! |---|---|
//! | [`special`] | logarithms of modified Bessel functions, their ratios and derivatives |
//!
//! Every kernel that can run long takes a [`Control`], through which another thread reads its
//! progress and asks it to stop.

mod control;
mod error;
pub mod parallel;
pub mod special;

pub use control::Control;
pub use error::Error;
