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
/// The same for the series of r'.
const SLOPE_TERMS: [i32; N_CLASSES] = [3, 6, 11, 20, 35, 55];

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
        0 => log_i_jet::<1, 1, CLASS>(v, x),
        1 => log_i_jet::<1, 2, CLASS>(v, x),
        2 => log_i_jet::<2, 2, CLASS>(v, x),
        _ => log_i_jet::<3, 2, CLASS>(v, x),
    }
}

#[inline(always)]
fn log_i_jet<const N: usize, const D: usize, const CLASS: usize>(v: f64, x: f64) -> Partials {
    let q = 0.25 * x * x;
    let series = Series::<N, D>::new(TERMS[CLASS], q, Jet::linear(1.0 + v, 1.0), 1.0);
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
    if N > 2 {
        let [slope] = series.slopes();
        out.vx = (0.5 * x).mul_add(slope.first(), 1.0 / x);
        out.xx = RatioSlope::<1, 1>::new(SLOPE_TERMS[CLASS], q, v).value(v, &series) - v / x / x;
    }
    out
}

/// r' S^2 = W / (2v + 2), W = 1 + .., a series of positive terms in q. It comes from r' I_v^2 =
/// I_v^2 - I_{v+1}^2 - (2v + 1) I_v I_{v+1} / x and the power series of the products (DLMF 10.31.3);
/// its terms have the quotients 2 (2v + 2k - 1) q / (k (v + k + 1) (2v + k + 1)).
struct RatioSlope<const N: usize, const D: usize> {
    /// The Taylor coefficients in q of W, times `scale`; jets in v.
    terms: [Jet<N>; D],
    scale: Jet<N>,
}

impl<const N: usize, const D: usize> RatioSlope<N, D> {
    /// As `Series`.
    #[inline(always)]
    fn new(terms: i32, q: f64, v: f64) -> Self {
        let v = Jet::<N>::linear(v, 1.0);
        let one = Jet::constant(1.0);
        let (mut a, mut d) = ([Jet::constant(0.0); D], one);
        a[0] = one;
        descending!(terms, |k| {
            // A power of two near k^-3 keeps the products in range.
            let unit = f64::from_bits((1023 - 3 * u64::from(k.ilog2())) << 52);
            let k = f64::from(k);
            let up = v.scale(2.0).shift(2.0 * k - 1.0).scale(2.0 * unit);
            let down = v.shift(k + 1.0) * v.scale(2.0).shift(k + 1.0);
            d = d * down.scale(k * unit);
            for i in (1..D).rev() {
                a[i] = a[i].scale_add(q, a[i - 1]) * up;
            }
            a[0] = a[0].mul_add(up.scale(q), d);
        });
        Self { terms: a, scale: d }
    }

    /// r'.
    #[inline(always)]
    fn value<const M: usize, const E: usize>(&self, v: f64, series: &Series<M, E>) -> f64 {
        let over_s = series.scale.value() / (series.terms[0] + series.scale).value();
        over_s * over_s * self.terms[0].value() / (self.scale.value() * (2.0 * v + 2.0))
    }
}

/// r = I_{v+1}(x) / I_v(x), with r_v, r_x, r_vx and r_xx; r_vv is not offered.
#[inline(always)]
pub(crate) fn ratio<const LEVEL: usize, const CLASS: usize>(v: f64, x: f64) -> Partials {
    match LEVEL {
        0 | 1 => ratio_jet::<1, 1, LEVEL, CLASS>(v, x),
        2 => ratio_jet::<2, 1, LEVEL, CLASS>(v, x),
        _ => ratio_jet::<2, 2, LEVEL, CLASS>(v, x),
    }
}

#[inline(always)]
fn ratio_jet<const N: usize, const D: usize, const LEVEL: usize, const CLASS: usize>(
    v: f64,
    x: f64,
) -> Partials {
    let q = 0.25 * x * x;
    let series = Series::<N, 2>::new(TERMS[CLASS], q, Jet::linear(1.0 + v, 1.0), 1.0);
    let [s] = series.slopes();
    let mut out = Partials {
        f: 0.5 * x * s.value(),
        v: 0.5 * x * s.first(),
        vv: f64::NAN,
        ..Partials::default()
    };
    if LEVEL > 0 {
        let slope = RatioSlope::<N, D>::new(SLOPE_TERMS[CLASS], q, v);
        out.x = slope.value(v, &series);
        if D > 1 {
            let log = slope.terms[0].div(slope.scale).ln_with_value(0.0);
            out.vx = out.x * (log.first() - 1.0 / (v + 1.0) - 2.0 * series.order_slope);
            let log_q = slope.terms[1].value() / slope.terms[0].value();
            out.xx = 0.5 * x * out.x * (log_q - 2.0 * s.value());
        }
    }
    out
}

/// 1 - r, and its derivatives.
#[inline(always)]
pub(crate) fn ratio_complement<const LEVEL: usize, const CLASS: usize>(v: f64, x: f64) -> Partials {
    let r = ratio::<LEVEL, CLASS>(v, x);
    let f = if BOUNDS[CLASS] <= 1.0 { 1.0 - r.f } else { complement(TERMS[CLASS], v, x) };
    Partials { f, v: -r.v, x: -r.x, vv: f64::NAN, vx: -r.vx, xx: -r.xx }
}

/// 1 - r from (1 - r)(1 + r) = r' + (2v + 1) r/x = 2v r/x + Var(k)/q, where the terms of the series
/// are the weights of k and r = (2/x) E(k).
#[inline(always)]
fn complement(terms: i32, v: f64, x: f64) -> f64 {
    let q = 0.25 * x * x;
    // Near E(k), so that little is subtracted from the second moment about it.
    let center = 2.0 * q / (v + 0.5 + ((v + 1.5) * (v + 1.5) + x * x).sqrt());
    let start = f64::from(terms) - center;
    let (mut sum, mut d): (f64, f64) = (1.0, 1.0);
    let (mut first, mut second) = (start, start * start);
    descending!(terms, |k| {
        let k = f64::from(k);
        d *= k.mul_add(v, k * k);
        let distance = k - 1.0 - center;
        sum = sum.mul_add(q, d);
        first = first.mul_add(q, d * distance);
        second = second.mul_add(q, d * distance * distance);
    });
    let shift = first / sum;
    let r = (center + shift) / (0.5 * x);
    let variance = (-shift).mul_add(shift, second / sum);
    (2.0 * v * r / x + variance / q) / (1.0 + r)
}

/// Number of classes of `class_hyp0f1`.
pub(crate) const N_CLASSES_HYP0F1: usize = 7;
/// The largest z of each class, and its terms; beyond the last bound z <= b.
const HYP0F1_BOUNDS: [f64; N_CLASSES_HYP0F1 - 1] = [1e-6, 2.5e-3, 0.25, 4.0, 30.25, 121.0];
const HYP0F1_TERMS: [i32; N_CLASSES_HYP0F1] = [3, 5, 9, 16, 25, 38, 20];

/// The class of a point, as `class`.
#[inline(always)]
pub(crate) fn class_hyp0f1(_b: f64, z: f64) -> usize {
    HYP0F1_BOUNDS.iter().map(|&bound| usize::from(z > bound)).sum()
}

/// log 0F1(; b; z), b > 0, for z <= b or 4 z + (b - 1)^2 < 22^2.
#[inline(always)]
pub(crate) fn log_hyp0f1<const LEVEL: usize, const CLASS: usize>(b: f64, z: f64) -> Partials {
    let terms = HYP0F1_TERMS[CLASS];
    match LEVEL {
        0 => log_hyp0f1_jet::<1, 1>(terms, b, z),
        1 => log_hyp0f1_jet::<1, 2>(terms, b, z),
        2 => log_hyp0f1_jet::<2, 2>(terms, b, z),
        _ => log_hyp0f1_jet::<3, 3>(terms + 1, b, z),
    }
}

#[inline(always)]
fn log_hyp0f1_jet<const N: usize, const D: usize>(terms: i32, b: f64, z: f64) -> Partials {
    // In units of b, where it is large: no term overflows.
    let over = 1.0 / if b > 1.0 { b } else { 1.0 };
    let unit = if b > 1.0 { 1.0 } else { b };
    let series = Series::<N, D>::new(terms, z * over, Jet::linear(unit, 1.0), over);
    let s = series.excess();
    let mut out = Partials { f: math::ln_1p(s.value()), ..Partials::default() };
    if N > 1 {
        out.v = over * series.order_slope;
    }
    if D > 1 {
        let [slope] = series.slopes();
        out.x = over * slope.value();
    }
    if D > 2 {
        let [slope, curvature] = series.slopes();
        out.vv = over * over * s.shift(1.0).ln_with_value(0.0).second();
        out.vx = over * over * slope.first();
        out.xx = over * over * (curvature.scale(2.0) - slope * slope).value();
    }
    out
}
