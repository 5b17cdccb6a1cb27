//! `K_v(x)` for hypot(v, x) < 22, and the Matern correlation.
//!
//! With n the integer next to v and u = v - n (u = -v where n = 0, which K allows), `K_u` and
//! `K_{u+1}` come from Temme's series (N. M. Temme, J. Comput. Phys. 19 (1975) 324) for small x,
//! else from the trapezoidal rule; the recurrence `k_{j+1}` = q `k_{j-1}` + (u + j) `k_j` of
//! `k_j` = (x/2)^j `K_{u+j}`, q = x^2/4, which has positive terms, goes up to n. All of it runs over
//! jets in the order. The derivative in x needs only the neighbor, `K_{v-1}`, which has gone by.

use super::gamma;
use super::jet::{Jet, Partials, UNROLLED, ascending, descending};
use super::math;

/// Classes in x: first `TEMME` of them, Temme's series with so many terms up to so large an x ..
const TEMME: usize = 3;
const TEMME_BOUNDS: [f64; TEMME] = [0.001, 0.15, 0.5];
const TEMME_TERMS: [i32; TEMME] = [2, 5, 8];
const MOST_TERMS: usize = 8;

/// .. then the trapezoidal rule with this step and so many nodes beside the middle one. Its error
/// is about exp(x - pi^2 / step); the nodes end where exp(-x (cosh t - 1)) is below 2^-57.
const RULE_BOUNDS: [f64; 2] = [3.0, 22.0];
const RULE_STEP: [f64; 2] = [0.225, 0.157];
const RULE_NODES: [i32; 2] = [23, 22];

/// Classes in v: below 3/2 nothing is left to the recurrence.
const LOW_ORDER: f64 = 1.5;
const STEPS: [i32; 2] = [0, 21];

/// The class of a point: all points of a class take the same steps.
#[inline(always)]
pub(crate) fn class(v: f64, x: f64) -> usize {
    let below: usize = TEMME_BOUNDS.iter().map(|&bound| usize::from(x > bound)).sum();
    2 * (below + usize::from(x > RULE_BOUNDS[0])) + usize::from(v >= LOW_ORDER)
}

/// v = n + u with |u| <= 1/2; where n = 0, u stands for -v.
struct Order<const N: usize> {
    n: f64,
    u: Jet<N>,
}

impl<const N: usize> Order<N> {
    #[inline(always)]
    fn new(v: f64) -> Self {
        let n = v.round_ties_even();
        let zero = n == 0.0;
        let u = if zero { -v } else { v - n };
        Self { n, u: Jet::linear(u, if zero { -1.0 } else { 1.0 }) }
    }

    /// Whether n = 0.
    #[inline(always)]
    fn zero(&self) -> bool {
        self.n == 0.0
    }

    /// One value where n = 0, the other above: a blend.
    #[inline(always)]
    fn choose(&self, at_zero: Jet<N>, above: Jet<N>) -> Jet<N> {
        Jet::select(self.zero(), at_zero, above)
    }

    /// 1 / u, or 1 where u = 0.
    #[inline(always)]
    fn over_u(&self) -> Jet<N> {
        Jet::select(self.u.value() == 0.0, Jet::constant(1.0), self.u).recip()
    }
}

/// 1/Gamma(1 + u) and 1/Gamma(1 - u), and the parts they are made of.
struct Gamma<const N: usize> {
    parts: [Jet<N>; 2],
    over: [Jet<N>; 2],
}

impl<const N: usize> Gamma<N> {
    #[inline(always)]
    fn new(u: Jet<N>) -> Self {
        let [g1, g2] = gamma::reciprocal_gamma_parts(u);
        Self { parts: [g1, g2], over: [g2 - u * g1, g2 + u * g1] }
    }
}

/// sinh(z)/z for |z| < 1, in powers of z^2.
const SINH: [f64; 9] = {
    let mut c = [1.0; 9];
    let mut k = 1;
    while k < 9 {
        c[k] = c[k - 1] / ((2 * k) * (2 * k + 1)) as f64;
        k += 1;
    }
    c
};

/// c sinh(z)/u, z = u log: its power series for |z| < 1, else `apart`.
#[inline(always)]
fn sinh<const N: usize>(z: Jet<N>, log: f64, c: Jet<N>, apart: Jet<N>) -> Jet<N> {
    let series = (z * z).horner(&SINH) * c.scale(log);
    Jet::select(z.value().abs() < 1.0, series, apart)
}

/// Temme's sums for c `K_u` and c (x/2) `K_{u+1}`, times the returned third number and
/// Gamma(1 + u) Gamma(1 - u).
///
/// c is a common factor of `up` = c e^z, `down` = c e^-z and `sinh` = c sinh(z)/u, where
/// z = u log(2/x). Temme's f, p, q are kept times q^k and times the product of j^2 - u^2 over
/// j <= k, and the sums over their common denominator: no division.
#[inline(always)]
fn temme<const N: usize, const CLASS: usize>(
    q: f64,
    u: Jet<N>,
    [up, down, sinh]: [Jet<N>; 3],
    g: &Gamma<N>,
) -> [Jet<N>; 3] {
    let mut f = (up + down).scale(0.5).mul_add(g.parts[0], sinh * g.parts[1]);
    let mut p = (up * g.over[1]).scale(0.5);
    let mut r = (down * g.over[0]).scale(0.5);
    let square = u * u;
    let uq = u.scale(q);
    let mut kept = [[f, p]; MOST_TERMS + 1];
    ascending!(TEMME_TERMS[CLASS / 2 % TEMME], |k| {
        let at = (k as usize).min(MOST_TERMS);
        let k = f64::from(k);
        f = f.scale_add(k, p + r).scale(q);
        p = p * uq.shift(k * q);
        r = -(r * uq.shift(-k * q));
        kept[at] = [f, f.scale_add(-k, p)];
    });
    // Backwards, so that the large first terms meet few roundings.
    let [mut sum, mut next] = kept[TEMME_TERMS[CLASS / 2 % TEMME] as usize];
    let mut scale = Jet::constant(1.0);
    descending!(TEMME_TERMS[CLASS / 2 % TEMME], |k| {
        let at = (k as usize - 1).min(MOST_TERMS);
        let k = f64::from(k);
        scale = scale * square.scale_add(-k, Jet::constant(k * k * k));
        sum = kept[at][0].mul_add(scale, sum);
        next = kept[at][1].mul_add(scale, next);
    });
    [sum, next, scale]
}

/// k(u) = e^x `K_u(x)` and -k'(x) of it, at u and, times x/2, at u + 1: by the trapezoidal rule on
/// k(u) = integral over t > 0 of exp(-x (cosh t - 1)) cosh(u t).
#[inline(always)]
fn trapezoid<const N: usize, const CLASS: usize>(u: Jet<N>, x: f64) -> [[Jet<N>; 2]; 2] {
    let rule = const { (CLASS / 2).saturating_sub(TEMME) };
    let step = RULE_STEP[rule];
    let up = math::exp(step * u.value());
    let down = math::exp(-step * u.value());
    let (mut a, mut b) = (1.0, 1.0);
    let zero = Jet::constant(0.0);
    let (mut k, mut slope) = ([Jet::constant(0.5); 2], [zero; 2]);
    ascending!(RULE_NODES[(CLASS / 2).saturating_sub(TEMME)], |j| {
        let [t, sinh, cosh_1] = NODES[rule][j as usize];
        a *= up;
        b *= down;
        let weight = 0.5 * math::exp(-x * cosh_1);
        // cosh and sinh of u t, then of (u + 1) t.
        let even = weight * (a + b);
        let odd = weight * (a - b);
        let next_even = (cosh_1 + 1.0).mul_add(even, sinh * odd);
        let next_odd = (cosh_1 + 1.0).mul_add(odd, sinh * even);
        for (i, [even, odd]) in [[even, odd], [next_even, next_odd]].into_iter().enumerate() {
            let node = Jet::taylor([even, t * u.first() * odd, 0.5 * t * t * even]);
            k[i] = k[i] + node;
            slope[i] = node.scale_add(cosh_1, slope[i]);
        }
    });
    [k, slope].map(|[this, next]| [this.scale(step), next.scale(0.5 * x * step)])
}

/// t, sinh t and cosh t - 1 at the nodes.
const fn nodes(step: f64) -> [[f64; 3]; UNROLLED + 1] {
    let mut out = [[0.0; 3]; UNROLLED + 1];
    let mut j = 0;
    while j < out.len() {
        // With s, c of t/2: sinh t = 2 s c and cosh t - 1 = 2 s^2.
        let t = j as f64 * step;
        let square = 0.25 * t * t;
        let (mut s, mut c) = (1.0, 1.0);
        let mut k = 24;
        while k > 0 {
            s = 1.0 + s * square / ((2 * k) * (2 * k + 1)) as f64;
            c = 1.0 + c * square / ((2 * k) * (2 * k - 1)) as f64;
            k -= 1;
        }
        s *= 0.5 * t;
        out[j] = [t, 2.0 * s * c, 2.0 * s * s];
        j += 1;
    }
    out
}

const NODES: [[[f64; 3]; UNROLLED + 1]; 2] = [nodes(RULE_STEP[0]), nodes(RULE_STEP[1])];

/// From `K_u` and (x/2) `K_{u+1}` to (x/2)^n `K_v`, the ratio `K_{v-1} / K_v`, and -d/dx log `K_v`
/// where `slopes` are the -d/dx of both: as they stand if both come times e^x.
#[inline(always)]
fn upward<const N: usize, const CLASS: usize>(
    order: &Order<N>,
    x: f64,
    start: [Jet<N>; 2],
    slopes: [Jet<N>; 2],
) -> [Jet<N>; 3] {
    let q = 0.25 * x * x;
    let [mut below, mut here] = start;
    let [mut slope_below, mut slope] = slopes;
    ascending!(STEPS[CLASS % 2], |j| {
        let j = f64::from(j);
        let more = order.n > j;
        let factor = order.u.shift(j);
        // The derivative of K_{v+1} = K_{v-1} + (2v/x) K_v has one term more, again positive.
        let next = factor.mul_add(here, below.scale(q));
        let next_slope = factor.mul_add(slope + here.scale(1.0 / x), slope_below.scale(q));
        below = Jet::select(more, here, below);
        here = Jet::select(more, next, here);
        slope_below = Jet::select(more, slope, slope_below);
        slope = Jet::select(more, next_slope, slope);
    });
    // n = 0: K_v = K_u and K_{v-1} = K_{u+1}.
    let k = order.choose(start[0], here);
    let neighbor = order.choose(start[1], below);
    let factor = if order.zero() { 2.0 / x } else { 0.5 * x };
    [k, neighbor.scale(factor).div(k), order.choose(slopes[0], slope).div(k)]
}

/// From both times 2/Gamma(1 + u), or where n = 0 times 2v/Gamma(1 + v), to 2 (x/2)^n `K_v` /
/// Gamma(v) and the ratio. The derivatives of `k_j` and of Gamma would cancel; for j > 0 and
/// `m_j` = 2 `k_j` / Gamma(u + j), `m_{j+1}` = `m_j` + q `m_{j-1}` / ((u + j)(u + j - 1)).
#[inline(always)]
fn upward_over_gamma<const N: usize, const CLASS: usize>(
    order: &Order<N>,
    x: f64,
    start: [Jet<N>; 2],
) -> [Jet<N>; 2] {
    let q = 0.25 * x * x;
    // `below` is m_{j-1} / (u + j - 1), which at j = 1 stands for a multiple of k_0.
    let [mut below, mut here] = start;
    ascending!(STEPS[CLASS % 2], |j| {
        let j = f64::from(j);
        let more = order.n > j;
        let over = order.u.shift(j).recip();
        let next = (below * over).scale_add(q, here);
        below = Jet::select(more, here * over, below);
        here = Jet::select(more, next, here);
    });
    let k = order.choose(start[0], here);
    let neighbor = order.choose(start[1], below);
    let factor = if order.zero() { 2.0 / x } else { 0.5 * x };
    [k, neighbor.scale(factor).div(k)]
}

/// log(e^x `K_v(x)`).
#[inline(always)]
pub(crate) fn log_kve<const LEVEL: usize, const CLASS: usize>(v: f64, x: f64) -> Partials {
    match LEVEL {
        0 | 1 => log_kve_jet::<1, LEVEL, CLASS>(v, x),
        2 => log_kve_jet::<2, LEVEL, CLASS>(v, x),
        _ => log_kve_jet::<3, LEVEL, CLASS>(v, x),
    }
}

#[inline(always)]
fn log_kve_jet<const N: usize, const LEVEL: usize, const CLASS: usize>(v: f64, x: f64) -> Partials {
    if const { CLASS / 2 < TEMME } {
        log_kve_temme::<N, LEVEL, CLASS>(v, x)
    } else {
        log_kve_trapezoid::<N, LEVEL, CLASS>(v, x)
    }
}

#[inline(always)]
fn log_kve_temme<const N: usize, const LEVEL: usize, const CLASS: usize>(
    v: f64,
    x: f64,
) -> Partials {
    let order = Order::<N>::new(v);
    let u = order.u;
    let log = -math::ln(0.5 * x);
    let z = u.scale(log);
    let (up, down) = (z.exp(), (-z).exp());
    // From order 1/2 on, c = e^-z: the whole power (x/2)^v is taken off, not only (x/2)^n, else
    // the second derivative in v would be a difference of squares of its logarithm.
    let one = Jet::constant(1.0);
    let [c, up, down] =
        [order.choose(one, down), order.choose(up, one), order.choose(down, down * down)];
    let apart = (up - down).scale(0.5) * order.over_u();
    let g = Gamma::new(u);
    let [sum, next, scale] =
        temme::<N, CLASS>(0.25 * x * x, u, [up, down, sinh(z, log, c, apart)], &g);
    let [k, ratio, _] = upward::<N, CLASS>(&order, x, [sum, next], [one; 2]);
    let f = k.div(scale * g.over[0] * g.over[1]).ln();
    let (power, slope) = if order.zero() { (0.0, 0.0) } else { (v, log) };
    let f = Partials {
        f: power.mul_add(log, f.value()) + x,
        v: f.first() + slope,
        vv: f.second(),
        ..Partials::default()
    };
    with_x_derivatives::<N, LEVEL>(v, x, f, ratio, 1.0 - (v / x + ratio.value()))
}

#[inline(always)]
fn log_kve_trapezoid<const N: usize, const LEVEL: usize, const CLASS: usize>(
    v: f64,
    x: f64,
) -> Partials {
    let order = Order::<N>::new(v);
    let [start, slopes] = trapezoid::<N, CLASS>(order.u, x);
    let [k, ratio, slope] = upward::<N, CLASS>(&order, x, start, slopes);
    let f = k.ln();
    let f = Partials {
        f: (-order.n).mul_add(math::ln(0.5 * x), f.value()),
        v: f.first(),
        vv: f.second(),
        ..Partials::default()
    };
    with_x_derivatives::<N, LEVEL>(v, x, f, ratio, -slope.value())
}

/// Completes `out` with the derivatives in x that the level asks for, given r = `K_{v-1} / K_v`.
#[inline(always)]
fn with_x_derivatives<const N: usize, const LEVEL: usize>(
    v: f64,
    x: f64,
    mut out: Partials,
    ratio: Jet<N>,
    slope: f64,
) -> Partials {
    let r = ratio.value();
    if const { LEVEL > 0 } {
        out.x = slope;
    }
    if const { LEVEL > 2 } {
        out.vx = -(1.0 / x + ratio.first());
        out.xx = 1.0 + v / x / x + (1.0 - 2.0 * v) * r / x - r * r;
    }
    out
}

/// log of the Matern correlation 2 (x/2)^nu `K_nu(x)` / Gamma(nu).
#[inline(always)]
pub(crate) fn log_matern<const LEVEL: usize, const CLASS: usize>(nu: f64, x: f64) -> Partials {
    match LEVEL {
        0 | 1 => log_matern_jet::<1, LEVEL, CLASS>(nu, x),
        2 => log_matern_jet::<2, LEVEL, CLASS>(nu, x),
        _ => log_matern_jet::<3, LEVEL, CLASS>(nu, x),
    }
}

#[inline(always)]
fn log_matern_jet<const N: usize, const LEVEL: usize, const CLASS: usize>(
    nu: f64,
    x: f64,
) -> Partials {
    let order = Order::<N>::new(nu);
    let [f, ratio] = if const { CLASS / 2 < TEMME } {
        matern_temme::<N, CLASS>(&order, x)
    } else {
        matern_trapezoid::<N, CLASS>(&order, x)
    };
    let mut out = Partials { f: f.value(), v: f.first(), vv: f.second(), ..Partials::default() };
    let r = ratio.value();
    if const { LEVEL > 0 } {
        out.x = -r;
    }
    if const { LEVEL > 2 } {
        out.vx = -ratio.first();
        out.xx = 1.0 + (1.0 - 2.0 * nu) * r / x - r * r;
    }
    out
}

/// log of the Matern correlation, and `K_{nu-1} / K_nu`.
#[inline(always)]
fn matern_temme<const N: usize, const CLASS: usize>(order: &Order<N>, x: f64) -> [Jet<N>; 2] {
    let u = order.u;
    let log = -math::ln(0.5 * x);
    let z = u.scale(log);
    let (up, down) = (z.exp(), (-z).exp());
    // Here c takes off the power of x at n = 0 too, and 1 / Gamma(nu) = nu / Gamma(1 + nu) there:
    // c = nu e^z. So nothing is lost for small x, nor for small nu.
    let one = Jet::constant(1.0);
    let c = order.choose(-(u * up), down);
    let apart = order.choose(one - up * up, (one - down * down) * order.over_u()).scale(0.5);
    let [up, down] = [order.choose(-(u * up * up), one), order.choose(-u, down * down)];
    let g = Gamma::new(u);
    let [sum, next, scale] =
        temme::<N, CLASS>(0.25 * x * x, u, [up, down, sinh(z, log, c, apart)], &g);
    let factor = (scale * order.choose(g.over[0], g.over[1])).recip().scale(2.0);
    let [m, ratio] = upward_over_gamma::<N, CLASS>(order, x, [sum * factor, next * factor]);
    [m.ln(), ratio]
}

/// The same by the trapezoidal rule.
#[inline(always)]
fn matern_trapezoid<const N: usize, const CLASS: usize>(order: &Order<N>, x: f64) -> [Jet<N>; 2] {
    let u = order.u;
    let [start, _] = trapezoid::<N, CLASS>(u, x);
    let g = Gamma::new(u);
    let factor = order.choose(-(u * g.over[1]), g.over[0]).scale(2.0);
    let [m, ratio] = upward_over_gamma::<N, CLASS>(order, x, start.map(|k| k * factor));
    // (x/2)^(nu - n), which is (x/2)^-u at n = 0.
    let power = order.choose(-u, u);
    [power.scale_add(math::ln(0.5 * x), m.ln()).shift(-x), ratio]
}

#[cfg(test)]
mod tests {
    use core::f64::consts::PI;

    use super::*;
    use crate::special::small_i::{self, log_i};

    /// `$name(v, x)` is `$f` at level `$level`, in the class of the point.
    macro_rules! in_class {
        ($name:ident, $f:ident, $level:literal, $class:path, [$($c:literal)*]) => {
            fn $name(v: f64, x: f64) -> Partials {
                match $class(v, x) {
                    $($c => $f::<$level, $c>(v, x),)*
                    _ => unreachable!(),
                }
            }
        };
    }

    in_class!(slope_k, log_kve, 1, class, [0 1 2 3 4 5 6 7 8 9]);
    in_class!(all_k, log_kve, 3, class, [0 1 2 3 4 5 6 7 8 9]);
    in_class!(all_m, log_matern, 3, class, [0 1 2 3 4 5 6 7 8 9]);
    in_class!(slope_i, log_i, 1, small_i::class, [0 1 2 3 4 5]);

    fn line(low: f64, high: f64, n: u32) -> impl Iterator<Item = f64> {
        (0..n).map(move |i| low * (high / low).powf(f64::from(i) / f64::from(n - 1)))
    }

    fn assert_close(ours: f64, exact: f64, tolerance: f64) {
        assert!((ours - exact).abs() <= tolerance, "{ours} is not {exact}");
    }

    /// Certified values (Arb): v, x, log K, d/dv log K.
    const CERTIFIED: [[f64; 4]; 10] = [
        [0.0, 0.001, 1.9492885501921987066, 0.0],
        [0.0, 20.0, -21.278176095586340831, 0.0],
        [0.1, 0.1, 0.9030244871822132702, 0.3261339955393024],
        [0.25, 2.0, -2.1595391849082104216, 0.1035317854506645],
        [1.0, 1e-5, 11.512925464363785489, 11.6288569879966],
        [2.5, 0.5, 3.0168039220911405471, 2.11444376506644],
        [5.0, 5.0, -3.4201883628440003858, 0.834607405453445],
        [15.0, 15.0, -9.2952023862822627032, 0.8650683667047804],
        [20.0, 0.1, 98.561250899252911307, 5.966263190926557],
        [21.0, 5.0, 22.090376270217791572, 2.119480666818175],
    ];

    #[test]
    fn log_k_and_order_derivative_match_certified_values() {
        for [v, x, log, slope] in CERTIFIED {
            let ours = all_k(v, x);
            assert_close(ours.f - x, log, 2e-15 * log.abs().max(v.hypot(x)));
            assert_close(ours.v, slope, 2e-15 * slope.abs().max(1.0));
        }
    }

    #[test]
    fn half_integer_orders_are_elementary() {
        for x in line(1e-6, 21.0, 200) {
            // e^x K = sqrt(pi / 2x) times 1, 1 + 1/x, 1 + 3/x + 3/x^2.
            let half = 0.5 * (0.5 * PI / x).ln();
            let exact = [
                (0.5f64, half, -0.5 / x),
                (1.5, half + (1.0 / x).ln_1p(), -0.5 / x - 1.0 / (x * (x + 1.0))),
                (
                    2.5,
                    half + (3.0 / x + 3.0 / (x * x)).ln_1p(),
                    -0.5 / x - 3.0 * (x + 2.0) / (x * (x * x + 3.0 * x + 3.0)),
                ),
            ];
            for (v, log, slope) in exact {
                let ours = all_k(v, x);
                assert_close(ours.f, log, 2e-15 * (log - x).abs().max(v.hypot(x)));
                assert_close(ours.x, slope, 3e-15 * slope.abs());
            }
        }
    }

    #[test]
    fn wronskian_with_i_is_one_over_x() {
        for v in [0.0, 1e-3, 0.25, 0.4999, 0.5, 0.75, 1.0, 1.5, 4.2, 11.5, 17.0] {
            for x in line(1e-5, 13.0, 80) {
                // I_v K_v (d/dx log I - d/dx log K) = 1/x.
                let (i, k) = (slope_i(v, x), all_k(v, x));
                let sum = i.f + (k.f - x) + (i.x - (k.x - 1.0)).ln() + x.ln();
                assert_close(sum, 0.0, 4e-15 * i.f.abs().max(k.f.abs()).max(v.hypot(x)).max(1.0));
            }
        }
    }

    #[test]
    fn second_derivatives_obey_the_equation_of_bessel() {
        // With g = d/dx log K: g' = 1 + v^2/x^2 - g/x - g^2, and this once more in v.
        for v in [0.0, 0.3, 0.5, 0.8, 2.0, 9.7] {
            for x in line(1e-4, 19.0, 60) {
                let k = all_k(v, x);
                let g = k.x - 1.0;
                let size = 1.0 + v * v / (x * x) + g * g;
                assert_close(k.xx, 1.0 + v * v / (x * x) - g / x - g * g, 4e-15 * size);
            }
        }
    }

    #[test]
    fn half_integer_matern_correlations_are_elementary() {
        for x in line(1e-15, 21.0, 300) {
            let exact = [
                (0.5, -x, -1.0),
                (1.5, x.ln_1p() - x, -x / (1.0 + x)),
                (2.5, (x + x * x / 3.0).ln_1p() - x, -x * (1.0 + x) / (3.0 + 3.0 * x + x * x)),
            ];
            for (nu, log, slope) in exact {
                let ours = all_m(nu, x);
                assert_close(ours.f, log, 4e-15 * log.abs().max(1.0));
                assert_close(ours.x, slope, 1e-14 * slope.abs());
            }
        }
    }

    #[test]
    fn matern_is_log_k_with_its_normalizer_taken_off() {
        for nu in [0.02, 0.3, 0.5, 0.9, 1.0, 6.25, 15.0] {
            for x in line(1e-3, 15.0, 60) {
                let (m, k) = (all_m(nu, x), all_k(nu, x));
                let gamma = gamma::ln_gamma_1p::<3>(nu);
                let log = core::f64::consts::LN_2 + nu * (0.5 * x).ln() + nu.ln();
                let exact = log - gamma.value() + (k.f - x);
                assert_close(m.f, exact, 1e-14 * k.f.abs().max(nu.hypot(x)).max(1.0));
                let exact = (0.5 * x).ln() + 1.0 / nu - gamma.first() + k.v;
                assert_close(m.v, exact, 1e-14 * k.v.abs().max(1.0 / nu).max(1.0));
                let exact = k.vv - 1.0 / (nu * nu) - gamma.second();
                assert_close(m.vv, exact, 4e-14 * (k.vv.abs() + 1.0 / (nu * nu)).max(10.0));
            }
        }
    }

    #[test]
    fn classes_meet_without_a_jump() {
        fn seam([a, b]: [Partials; 2], scale: f64) {
            assert_close(a.f, b.f, 2e-15 * scale.max(a.f.abs()));
            assert_close(a.x, b.x, 5e-15 * a.x.abs());
            assert_close(a.v, b.v, 3e-15 * a.v.abs().max(1.0));
        }
        let (t, r) = (TEMME_BOUNDS, RULE_BOUNDS);
        for v in [0.0, 1e-3, 0.5, 1.0, 1.4999] {
            seam([log_kve::<2, 0>(v, t[0]), log_kve::<2, 2>(v, t[0])], v.hypot(t[0]));
            seam([log_kve::<2, 2>(v, t[1]), log_kve::<2, 4>(v, t[1])], v.hypot(t[1]));
            seam([log_kve::<2, 4>(v, t[2]), log_kve::<2, 6>(v, t[2])], v.hypot(t[2]));
            seam([log_kve::<2, 6>(v, r[0]), log_kve::<2, 8>(v, r[0])], v.hypot(r[0]));
            seam([log_kve::<2, 8>(v, 9.0), log_kve::<2, 9>(v, 9.0)], 9.0);
        }
        for v in [1.5, 4.0, 9.7, 20.5] {
            seam([log_kve::<2, 1>(v, t[0]), log_kve::<2, 3>(v, t[0])], v.hypot(t[0]));
            seam([log_kve::<2, 3>(v, t[1]), log_kve::<2, 5>(v, t[1])], v.hypot(t[1]));
            seam([log_kve::<2, 5>(v, t[2]), log_kve::<2, 7>(v, t[2])], v.hypot(t[2]));
            seam([log_kve::<2, 7>(v, r[0]), log_kve::<2, 9>(v, r[0])], v.hypot(r[0]));
            seam([log_matern::<2, 5>(v, t[2]), log_matern::<2, 7>(v, t[2])], 1.0);
        }
    }

    #[test]
    fn levels_agree_bit_for_bit_on_what_they_share() {
        for (v, x) in [(0.0, 1e-5), (0.3, 0.6), (6.0, 0.01), (2.5, 19.0), (0.7, 2.0)] {
            let (low, high) = (slope_k(v, x), all_k(v, x));
            assert_eq!((low.f, low.x), (high.f, high.x));
        }
    }
}
