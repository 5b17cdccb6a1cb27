//! Dense and sparse matrices of samples, and the products, distances and factorizations that many
//! kernels share.

pub(crate) mod cholesky;
pub(crate) mod column;
mod distances;
pub(crate) mod narrow;
mod rows;
pub(crate) mod skinny;
pub(crate) mod softmax;

pub use distances::{Metric, Points};
pub use rows::{Csr, Rows};
pub use skinny::Lanes;
