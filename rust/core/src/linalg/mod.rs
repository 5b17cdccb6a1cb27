//! Dense and sparse matrices of samples, and the products that many kernels share.

pub(crate) mod cholesky;
mod rows;
pub(crate) mod skinny;

pub use rows::{Csr, Rows};
pub use skinny::Lanes;
