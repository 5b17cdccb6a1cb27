//! I_v(x), its ratio I_{v+1}/I_v, and 0F1, for hypot(v, x) < 22.
//!
//! Everything comes from one power series with positive terms,
//! S(q) = sum q^k / (k! (b)_k) = 0F1(; b; q), with q = x^2/4 and b = v + 1:
//! log I = v ln(x/2) - ln Gamma(v + 1) + ln S and I_{v+1}/I_v = (x/2) S'/S. It is summed backwards
//! without divisions, over jets in the order and over Taylor coefficients in q, so that each
//! derivative is again a quotient of sums of one sign.

use super::gamma;
use super::jet::{Jet, Partials, descending};

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

/// Taylor coefficients in q of S - 1, times a common denominator, and that denominator.
///
/// S = sum q^k / (k! (b)_k) with (b)_k = product of (b + j e) over j < k. Horner's rule without
/// division: the fraction a/d = 1 + q/m_k (a/d) with m_k = k (b + (k - 1) e) keeps a and d apart.
#[inline(always)]
fn series<const N: usize, const D: usize>(
    terms: i32,
    q: f64,
    b: Jet<N>,
    e: f64,
) -> ([Jet<N>; D], Jet<N>) {
    let mut d = Jet::<N>::constant(1.0);
    let mut a = [Jet::<N>::constant(0.0); D];
    a[0] = d;
    descending!(terms, |k| {
        let k = f64::from(k);
        d = d * b.scale_add(k, Jet::constant(k * (k - 1.0) * e));
        for i in (1..D).rev() {
            a[i] = a[i].scale_add(q, a[i - 1]);
        }
        a[0] = if k > 1.0 { a[0].scale_add(q, d) } else { a[0].scale(q) };
    });
    (a, d)
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
    let (a, d) = series::<N, D>(terms, q, Jet::linear(1.0 + v, 1.0), 1.0);
    let s = a[0].div(d);
    let p = gamma::rising::<N>(v);
    // S Gamma(8 + v) / (7! Gamma(1 + v)) - 1, which goes to 0 with v and x.
    let f = gamma::add_log_power(v, x, s.mul_add(p, s + p).ln_1p());
    let mut out = Partials { f: f.value(), v: f.first(), vv: f.second(), ..Partials::default() };
    if D > 1 {
        let whole = a[0] + d;
        out.x = whole.value().mul_add(v, 2.0 * q * a[1].value()) / (x * whole.value());
        if D > 2 {
            let slope = a[1].div(whole);
            let ratio_x = ratio_slope(q, slope, a[2].div(whole)).value();
            out.vx = (0.5 * x).mul_add(slope.first(), 1.0 / x);
            out.xx = ratio_x - v / x / x;
        }
    }
    out
}

/// d/dx of r = (x/2) S'/S, given S'/S and S''/(2 S).
#[inline(always)]
fn ratio_slope<const N: usize>(q: f64, slope: Jet<N>, curvature: Jet<N>) -> Jet<N> {
    (curvature.scale(2.0) - slope * slope).scale(q) + slope.scale(0.5)
}
