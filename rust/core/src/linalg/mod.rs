//! Dense and sparse matrices of samples, the products and the distances that many kernels share.

mod distances;
mod rows;
pub(crate) mod skinny;

pub use distances::{Metric, Points};
pub use rows::{Csr, Rows};
pub use skinny::Lanes;
