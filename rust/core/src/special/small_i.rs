//! I_v(x), its ratio I_{v+1}/I_v, and 0F1, for hypot(v, x) < 22.
//!
//! Everything comes from one power series with positive terms,
//! S(q) = sum q^k / (k! (b)_k) = 0F1(; b; q), with q = x^2/4 and b = v + 1:
//! log I = v ln(x/2) - ln Gamma(v + 1) + ln S and I_{v+1}/I_v = (x/2) S'/S. It is summed backwards
//! without divisions, over jets in the order and over Taylor coefficients in q, so that each
//! derivative is again a quotient of sums of one sign.

use super::gamma;
use super::jet::{Jet, Partials, descending};
use super::math;

/// Number of classes of `class`.
pub(crate) const N_CLASSES: usize = 6;
/// The largest x of each class, and the terms that leave less than 2^-57 of S - 1.
const BOUNDS: [f64; N_CLASSES] = [2e-3, 0.1, 1.0, 4.0, 11.0, 22.0];
const TERMS: [i32; N_CLASSES] = [3, 5, 9, 16, 25, 37];

/// The class of a point: everything in it takes the same number of terms.
#[inline(always)]
pub(crate) fn class(_v: f64, x: f64) -> usize {
    BOUNDS[..N_CLASSES - 1].iter().map(|&bound| usize::from(x > bound)).sum()
}

/// S = sum q^k / (k! (b)_k), (b)_k the product of b + j e over j < k, as sums of positive terms.
struct Series<const N: usize, const D: usize> {
    /// The Taylor coefficients in q of S - 1, times `scale`; jets in b.
    terms: [Jet<N>; D],
    scale: Jet<N>,
    /// S' / S for the derivative in b, of higher accuracy than the jets, where d and its derivative
    /// are both large.
    order_slope: f64,
}

impl<const N: usize, const D: usize> Series<N, D> {
    /// Horner's rule on fractions, a/d <- 1 + (q / m_k) (a/d) with m_k = k (b + (k - 1) e), where
    /// numerators and denominators stay apart: there is no division.
    #[inline(always)]
    fn new(terms: i32, q: f64, b: Jet<N>, e: f64) -> Self {
        let one = Jet::<N>::constant(1.0);
        let (mut a, mut d) = ([Jet::constant(0.0); D], one);
        a[0] = one;
        // The derivative of a/d in b is -slope / (d product): with its own denominator, the
        // product of b + (k - 1) e, it is a sum of positive terms too.
        let (mut slope, mut product) = (0.0, 1.0);
        descending!(terms, |k| {
            let k = f64::from(k);
            let factor = b.shift((k - 1.0) * e).value();
            slope = q * factor.mul_add(slope, a[0].value() * product);
            product *= factor;
            d = d * b.scale_add(k, Jet::constant(k * (k - 1.0) * e));
            for i in (1..D).rev() {
                a[i] = a[i].scale_add(q, a[i - 1]);
            }
            a[0] = if k > 1.0 { a[0].scale_add(q, d) } else { a[0].scale(q) };
        });
        let order_slope = -slope / (product * (a[0].value() + d.value()));
        Self { terms: a, scale: d, order_slope }
    }

    /// S - 1.
    #[inline(always)]
    fn excess(&self) -> Jet<N> {
        self.terms[0].div(self.scale)
    }

    /// S' / S, S'' / (2 S), .. for derivatives in q, the first C of them.
    #[inline(always)]
    fn slopes<const C: usize>(&self) -> [Jet<N>; C] {
        let whole = self.terms[0] + self.scale;
        core::array::from_fn(|i| self.terms[i + 1].div(whole))
    }
}

/// log I_v(x).
#[inline(always)]
pub(crate) fn log_i<const LEVEL: usize, const CLASS: usize>(v: f64, x: f64) -> Partials {
    match LEVEL {
        0 => log_i_jet::<1, 1>(TERMS[CLASS], v, x),
        1 => log_i_jet::<1, 2>(TERMS[CLASS], v, x),
        2 => log_i_jet::<2, 2>(TERMS[CLASS], v, x),
        _ => log_i_jet::<3, 3>(TERMS[CLASS] + 1, v, x),
    }
}

#[inline(always)]
fn log_i_jet<const N: usize, const D: usize>(terms: i32, v: f64, x: f64) -> Partials {
    let q = 0.25 * x * x;
    let series = Series::<N, D>::new(terms, q, Jet::linear(1.0 + v, 1.0), 1.0);
    let s = series.excess();
    let p = gamma::rising::<1>(v).value();
    let log = math::ln(0.5 * x);
    // ln(S / Gamma(1 + v)) with S Gamma(8 + v) / (7! Gamma(1 + v)) - 1, which goes to 0 with v and x.
    let rest = math::ln_1p(s.value().mul_add(p, s.value() + p));
    let mut out = Partials { f: v.mul_add(log - gamma::mean_log(v), rest), ..Partials::default() };
    if N > 1 {
        out.v = log - gamma::digamma_1p(v) + series.order_slope;
    }
    if N > 2 {
        out.vv = s.shift(1.0).ln_with_value(0.0).second() - gamma::trigamma_1p(v);
    }
    if D > 1 {
        let whole = (series.terms[0] + series.scale).value();
        out.x = whole.mul_add(v, 2.0 * q * series.terms[1].value()) / (x * whole);
    }
    if D > 2 {
        let [slope, curvature] = series.slopes();
        out.vx = (0.5 * x).mul_add(slope.first(), 1.0 / x);
        out.xx = ratio_slope(q, slope, curvature).value() - v / x / x;
    }
    out
}

/// d/dx of r = (x/2) S'/S, given S'/S and S''/(2 S).
#[inline(always)]
fn ratio_slope<const N: usize>(q: f64, slope: Jet<N>, curvature: Jet<N>) -> Jet<N> {
    (curvature.scale(2.0) - slope * slope).scale_add(q, slope.scale(0.5))
}
