//! Entropic optimal transport.
//!
//! For weights `a` (n) and `b` (m) of equal mass, a cost matrix `C` and `epsilon > 0`,
//!
//! ```text
//! min over P >= 0, P 1 = a, P' 1 = b   of   <P, C> + epsilon KL(P | a b')
//! plan   P_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon)
//! dual   <a, f> + <b, g> - epsilon (sum of P - mass of a b')
//! ```
//!
//! The potentials are found by [`sinkhorn`]. [`bridge`] has what the fit of a light Schrödinger bridge
//! sums over a sample; [`motion`] has where a bridge goes, [`density`] with which density,
//! and [`potential`] its potentials.

mod axes;
mod batch;
pub mod bridge;
mod cost;
pub mod density;
mod law;
mod log_domain;
mod marginal;
pub mod motion;
mod newton;
mod plan;
pub mod potential;
mod relaxation;
mod rows;
mod scaling;
mod sinkhorn;
mod symmetric;
mod tiles;

pub use batch::sinkhorn_batch;
pub use cost::{Clouds, Cost, Dense};
pub use newton::solve_adjoint;
pub use plan::{
    Plan, PositionGradient, Rounding, SparsePlan, Sums, log_kernel_sums, position_gradient,
};
pub use rows::Potentials;
pub use sinkhorn::{Method, Options, Problem, Solution, sinkhorn};
pub use symmetric::sinkhorn_symmetric;
