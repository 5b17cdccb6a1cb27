//! Tall data made small: scores of rows, draws of them, and sketches.
//!
//! All passes go over a [`Frame`]: the rows of a dense or sparse matrix, in a basis in which they are
//! well conditioned. [`gram`] sums their products, [`squared_norms`] gives leverage scores from the
//! sum, and [`lewis_step`] both at once for the weights of another exponent. [`exact_sensitivities`] and
//! [`pair_power_sums`] bound the part that a row can have in a sum of powers. [`bernoulli`] and
//! [`pivotal`] draw rows by such scores.

mod gram;
mod panel;
mod power;
mod sampling;
mod scores;
mod sensitivity;

pub use gram::gram;
pub use panel::Frame;
pub use sampling::{bernoulli, pivotal, row_uniforms, water_level};
pub use scores::{lewis_step, squared_norms};
pub use sensitivity::{exact_sensitivities, pair_power_sums, power_sums};
