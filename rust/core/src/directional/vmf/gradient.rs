//! The derivative of w = mu . x in the concentration, for reparameterised gradients.

use core::f64::consts::{FRAC_1_PI, PI};

use ndarray::{Array1, ArrayView1, aview0};

use super::{check_concentration, check_dim};
use crate::random::sin_cos;
use crate::simd::vectorize;
use crate::special::{self, Function, math};
use crate::{Control, Error, parallel};

/// Draws in a chunk.
const CHUNK: usize = 256;

/// dw/dkappa at a fixed value of the distribution function F(w; kappa), for each 1 - w in
/// `complement`.
///
/// Element i belongs to `concentration[i mod m]`, in the order of
/// [`sample_marginal`](super::sample_marginal). With the marginal density f(w; kappa) and its mean A,
///
/// dw/dkappa = -(dF/dkappa) / f(w) = (integral of (t - A) f(t) over t from w to 1) / f(w)
///
/// (Figurnov, Mohamed and Mnih 2018), so that E[dw/dkappa] = A'(kappa) exactly. Differentiating the
/// accepted proposal of the rejection sampler instead would be biased. Relative error below 1e-13, and
/// growing as d eps for d above 1000.
///
/// # Errors
/// [`Error::Domain`] for a negative concentration, 1 - w outside of [0, 2] or fewer than two
/// dimensions, [`Error::Cancelled`].
pub fn marginal_gradient(
    dim: usize,
    concentration: ArrayView1<'_, f64>,
    complement: ArrayView1<'_, f64>,
    control: &Control,
) -> Result<Array1<f64>, Error> {
    check_dim("dim", dim)?;
    check_concentration(concentration)?;
    if let Some(&got) = complement.iter().find(|c| !(0.0..=2.0).contains(*c)) {
        return Err(Error::Domain { name: "complement", expected: "in [0, 2]", got });
    }
    let laws = marginals(dim, concentration, control)?;
    let mut out = Array1::from_iter(complement.iter().copied());
    let elements = out.as_slice_mut().unwrap_or_default();
    parallel::for_each_chunk(elements, CHUNK, control, |start, chunk| {
        vectorize(
            #[inline(always)]
            || {
                for (i, value) in chunk.iter_mut().enumerate() {
                    *value = laws[(start + i) % laws.len()].gradient(*value);
                }
            },
        );
        Ok(())
    })?;
    Ok(out)
}

/// The laws with these concentrations.
fn marginals(
    dim: usize,
    concentration: ArrayView1<'_, f64>,
    control: &Control,
) -> Result<Vec<Marginal>, Error> {
    let power = (dim - 2) as f64;
    let order = 0.5 * power;
    let complements = special::evaluate(
        Function::BesselRatioComplement,
        &[(0, 0)],
        aview0(&order).into_dyn(),
        concentration.into_dyn(),
        control,
    )?;
    let laws = concentration.iter().zip(complements.iter().flatten());
    let law =
        |(&concentration, &mean_complement)| Marginal { power, concentration, mean_complement };
    Ok(laws.map(law).collect())
}

/// The marginal law of w = cos(theta), by its angle: density g(theta) = e^(kappa cos theta)
/// sin(theta)^(d-2), smooth for every d, where that of w is singular at its ends for d = 2.
#[derive(Debug, Clone, Copy)]
struct Marginal {
    /// d - 2.
    power: f64,
    concentration: f64,
    /// 1 - A.
    mean_complement: f64,
}

impl Marginal {
    /// dw/dkappa = sin(theta) times the integral of (cos s - A) g(s) / g(theta) over the angles s
    /// of the tail on theta's side of the mean.
    #[inline(always)]
    fn gradient(self, complement: f64) -> f64 {
        if self.concentration == f64::INFINITY {
            0.0
        } else if complement > 1.0 {
            // Seen from the other pole, where 1 + w is small instead.
            let mirrored = Self {
                concentration: -self.concentration,
                mean_complement: 2.0 - self.mean_complement,
                ..self
            };
            mirrored.tail(2.0 - complement, -1.0)
        } else if complement < self.mean_complement {
            self.tail(complement, -1.0)
        } else {
            self.tail(complement, 1.0)
        }
    }

    /// The integral over the angles below (`direction` -1) or above (1) that of `complement` <= 1.
    #[inline(always)]
    fn tail(self, complement: f64, direction: f64) -> f64 {
        // A tail at the pole itself is empty; the smallest normal number keeps 0/0 away.
        let u = complement.max(f64::MIN_POSITIVE);
        let (half_sin2, half_cos2) = (0.5 * u, 1.0 - 0.5 * u);
        let (half_sin, half_cos) = (half_sin2.sqrt(), half_cos2.sqrt());
        let (sin, cos) = (2.0 * half_sin * half_cos, 1.0 - u);
        let angle = 2.0 * half_sin.atan2(half_cos);

        // log g falls by slope l + curvature l^2 / 2 or more at distance l: the tail is cut where
        // it has lost a factor e^-45.
        let slope = (self.power * cos / sin - self.concentration * sin).abs();
        let curvature = self.power + 0.5 * (self.concentration * cos).max(0.0);
        let cut = 90.0 / (slope + (slope * slope + 90.0 * curvature).sqrt());
        let length = cut.min(if direction < 0.0 { angle } else { PI - angle });

        let mut terms = [0.0; 2 * NODES.len()];
        for (i, term) in terms.iter_mut().enumerate() {
            let (node, weight) = NODES[i / 2];
            let x = if i % 2 == 0 { 0.5 - 0.5 * node } else { 0.5 + 0.5 * node };
            // The half angle is (pi/2) t with t in (0, 1).
            let t = (angle + direction * length * x) * FRAC_1_PI;
            let far = t > 0.5;
            let (a, b) = sin_cos(if far { 1.0 - t } else { t });
            let (s, c) = if far { (b, a) } else { (a, b) };
            let v = 2.0 * s * s;
            let log_ratio =
                self.concentration * (u - v) + self.power * math::ln(s * c / (half_sin * half_cos));
            *term = weight * (self.mean_complement - v) * math::exp(log_ratio);
        }
        -direction * 0.5 * length * sin * terms.iter().sum::<f64>()
    }
}

/// Nodes and weights of the 32-point Gauss-Legendre rule on [-1, 1]; the other half is mirrored.
const NODES: [(f64, f64); 16] = [
    (0.04830766568773832, 0.0965400885147278),
    (0.1444719615827965, 0.09563872007927486),
    (0.23928736225213706, 0.09384439908080457),
    (0.33186860228212767, 0.09117387869576389),
    (0.42135127613063533, 0.08765209300440381),
    (0.5068999089322294, 0.08331192422694675),
    (0.5877157572407623, 0.07819389578707031),
    (0.6630442669302152, 0.0723457941088485),
    (0.7321821187402897, 0.06582222277636185),
    (0.7944837959679424, 0.058684093478535544),
    (0.84936761373257, 0.050998059262376175),
    (0.8963211557660521, 0.04283589802222668),
    (0.9349060759377397, 0.03427386291302143),
    (0.9647622555875064, 0.02539206530926206),
    (0.9856115115452684, 0.01627439473090567),
    (0.9972638618494816, 0.007018610009470096),
];

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn at(dim: usize, kappa: f64, complements: &[f64]) -> Array1<f64> {
        let complements = ArrayView1::from(complements);
        marginal_gradient(dim, array![kappa].view(), complements, &Control::new()).unwrap()
    }

    /// The mean of dw/dkappa over the marginal law, by quadrature in the angle on 200 panels.
    fn mean_gradient(dim: usize, kappa: f64) -> f64 {
        let width = PI / 200.0;
        let (angles, weights): (Vec<f64>, Vec<f64>) = (0..200)
            .flat_map(|panel| {
                NODES.into_iter().flat_map(move |(node, weight)| {
                    [-node, node].map(|x| (width * (f64::from(panel) + 0.5 + 0.5 * x), weight))
                })
            })
            .unzip();
        let complements: Vec<f64> = angles.iter().map(|a| 2.0 * (a / 2.0).sin().powi(2)).collect();
        let gradient = at(dim, kappa, &complements);
        let height = |a: &f64| kappa * a.cos() + (dim - 2) as f64 * a.sin().ln();
        let top = angles.iter().map(height).fold(f64::NEG_INFINITY, f64::max);
        let mass: Vec<f64> =
            angles.iter().zip(&weights).map(|(a, w)| w * (height(a) - top).exp()).collect();
        let mean: f64 = mass.iter().zip(&gradient).map(|(m, g)| m * g).sum();
        mean / mass.iter().sum::<f64>()
    }

    /// A'(kappa) from the ratio's differential equation, with the series at small concentrations.
    fn slope(dim: usize, kappa: f64) -> f64 {
        let order = array![0.5 * dim as f64 - 1.0].into_dyn();
        let kappa = array![kappa].into_dyn();
        let control = Control::sequential();
        special::evaluate(Function::BesselRatio, &[(0, 1)], order.view(), kappa.view(), &control)
            .unwrap()[0][0]
    }

    #[test]
    fn the_mean_over_the_law_is_the_slope_of_the_mean() {
        for dim in [2, 3, 4, 5, 10, 128, 2048] {
            for kappa in [1e-3, 0.5, 2.0, 30.0, 1000.0] {
                let error = (mean_gradient(dim, kappa) / slope(dim, kappa) - 1.0).abs();
                assert!(error < 1e-12, "{dim} {kappa}: {error:e}");
            }
        }
    }

    #[test]
    fn on_the_sphere_in_space_it_is_the_derivative_of_the_closed_form() {
        // 1 - w = -log1p((1 - u) expm1(-2k)) / k at a fixed u.
        for kappa in [0.3, 2.0, 40.0] {
            for u in [0.01, 0.3, 0.7, 0.99] {
                let shrink = (1.0 - u) * f64::exp_m1(-2.0 * kappa);
                let complement = -f64::ln_1p(shrink) / kappa;
                let expected = complement / kappa
                    - 2.0 * (1.0 - u) * (-2.0 * kappa).exp() / ((1.0 + shrink) * kappa);
                let got = at(3, kappa, &[complement])[0];
                assert!((got / expected - 1.0).abs() < 1e-12, "{kappa} {u}");
            }
        }
    }

    #[test]
    fn it_is_positive_and_vanishes_at_the_poles() {
        for dim in [2, 3, 200] {
            for kappa in [0.0, 1e-8, 1.0, 1e12, f64::INFINITY] {
                let found = at(dim, kappa, &[0.0, 1e-300, 1e-20, 1e-3, 1.0, 1.9, 2.0]);
                assert!(found.iter().all(|g| g.is_finite() && *g >= 0.0), "{dim} {kappa}: {found}");
                assert!(found[0] < 1e-150 && found[6] < 1e-150, "{dim} {kappa}: {found}");
            }
        }
    }

    #[test]
    fn bad_arguments_are_named() {
        let message = |dim, kappa: f64, complement: f64| {
            marginal_gradient(dim, array![kappa].view(), array![complement].view(), &Control::new())
                .unwrap_err()
                .to_string()
        };
        assert!(message(1, 1.0, 1.0).contains("'dim'"));
        assert!(message(2, -1.0, 1.0).contains("'concentration'"));
        assert!(message(2, 1.0, 2.5).contains("'complement' must be in [0, 2]; got 2.5"));
        assert!(message(2, 1.0, f64::NAN).contains("'complement'"));
    }
}
