//! The von Mises-Fisher distribution on the unit sphere of R^d.
//!
//! Its density is proportional to exp(kappa mu . x). Along the mean direction w = mu . x has the
//! marginal density proportional to exp(kappa w) (1 - w^2)^((d-3)/2); across it, x is uniform. The
//! mean of w is A = I_{d/2}(kappa) / I_{d/2-1}(kappa), and that of the concentrated distribution lies
//! so near 1 that everything here is carried as a complement: 1 - w, 1 - A.

mod fit;
mod gradient;
mod sample;

pub use fit::{MeanDirection, mean_direction, one_minus_dot};
pub use gradient::marginal_gradient;
pub use sample::{sample, sample_marginal};

use ndarray::ArrayView1;

use crate::{Error, Real};

/// Lanes of the running sums over a row.
const LANES: usize = 16;
/// Elements summed in lanes before they join the total.
const SEGMENT: usize = 1024;

/// A sum of lanes, segment by segment, with what rounding has lost: with 10^5 elements a plain
/// running sum would leave norms off by more than 4e-16.
#[derive(Default)]
struct Total {
    sum: f64,
    lost: f64,
}

impl Total {
    #[inline(always)]
    fn add(&mut self, mut lanes: [f64; LANES]) {
        let mut width = LANES;
        while width > 1 {
            width /= 2;
            for l in 0..width {
                lanes[l] += lanes[l + width];
            }
        }
        let next = self.sum + lanes[0];
        self.lost += (self.sum - next) + lanes[0];
        self.sum = next;
    }

    #[inline(always)]
    fn value(&self) -> f64 {
        self.sum + self.lost
    }
}

/// How many distributions the two parameters describe: equally many each, or one that is shared.
fn n_distributions(n_locs: usize, n_concentrations: usize) -> Result<usize, Error> {
    match (n_locs, n_concentrations) {
        (n, m) if n == m || m == 1 => Ok(n),
        (1, m) => Ok(m),
        (n, m) => Err(Error::Shape {
            name: "concentration",
            expected: format!("({n},) or (1,)"),
            got: vec![m],
        }),
    }
}

/// Fails on a dimension below 2.
fn check_dim(name: &'static str, dim: usize) -> Result<(), Error> {
    if dim < 2 {
        return Err(Error::Domain { name, expected: "of dimension 2 or more", got: dim as f64 });
    }
    Ok(())
}

/// Fails on a negative concentration or NaN. Infinity is the point mass at the mean direction.
fn check_concentration(concentration: ArrayView1<'_, f64>) -> Result<(), Error> {
    match concentration.iter().find(|k| !(**k >= 0.0)) {
        Some(&got) => Err(Error::Domain { name: "concentration", expected: ">= 0", got }),
        None => Ok(()),
    }
}

/// The root of `square`, or why a row with this squared norm is no unit vector.
fn check_norm<T: Real>(name: &'static str, row: usize, square: f64) -> Result<f64, Error> {
    let norm = square.sqrt();
    if (norm - 1.0).abs() <= T::UNIT_TOLERANCE {
        Ok(norm)
    } else {
        Err(Error::NotUnit { name, row, norm })
    }
}
