//! K_v(x) for hypot(v, x) < 22, and the Matern correlation.
//!
//! With n the integer next to v and u = v - n (u = -v where n = 0, which K allows), K_u and K_{u+1}
//! come from Temme's series for small x (N. M. Temme, J. Comput. Phys. 19 (1975) 324) and from the
//! trapezoidal rule for the others; the recurrence k_{j+1} = q k_{j-1} + (u + j) k_j of
//! k_j = (x/2)^j K_{u+j}, q = x^2/4, which has positive terms, goes up to n. All of it runs over
//! jets in the order. The derivative in x needs only the neighbour, K_{v-1}, which has gone by.

use super::gamma;
use super::jet::{Jet, Partials, UNROLLED, ascending, descending};
use super::math;

/// Classes in x: Temme's series with so many terms up to so large an x ..
const TEMME_BOUNDS: [f64; 3] = [0.001, 0.15, 0.7];
const TEMME_TERMS: [i32; 3] = [2, 5, 9];
const MOST_TERMS: usize = 9;

/// .. then the trapezoidal rule with this step and so many nodes beside the middle one. Its error
/// is about exp(x - pi^2 / step); the nodes end where exp(-x (cosh t - 1)) is below 2^-57.
const RULE_BOUNDS: [f64; 2] = [3.0, 22.0];
const RULE_STEP: [f64; 2] = [0.235, 0.161];
const RULE_NODES: [i32; 2] = [21, 21];

const X_CLASSES: usize = TEMME_BOUNDS.len() + RULE_BOUNDS.len();
/// Classes in v: below 3/2 nothing is left to the recurrence.
const LOW_ORDER: f64 = 1.5;
const STEPS: [i32; 2] = [0, 21];

/// Number of classes of `class`.
pub(crate) const N_CLASSES: usize = 2 * X_CLASSES;

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
}

/// Temme's sums for c K_u and c (x/2) K_{u+1}, times the returned third number and
/// Gamma(1 + u) Gamma(1 - u).
///
/// c is a common factor of `up` = c e^z, `down` = c e^-z and `sinh` = c sinh(z)/u, where
/// z = u log(2/x); `over_gamma` is 1/Gamma(1 + u), 1/Gamma(1 - u), from `g1`, `g2` (see `gamma`).
/// His f, p, q are kept times q^k and times the product of j^2 - u^2 over j <= k, and the sums over
/// their common denominator: no division.
#[inline(always)]
fn temme<const N: usize>(
    terms: i32,
    q: f64,
    u: Jet<N>,
    [up, down, sinh]: [Jet<N>; 3],
    [g1, g2]: [Jet<N>; 2],
    over_gamma: [Jet<N>; 2],
) -> [Jet<N>; 3] {
    let mut f = (up + down).scale(0.5).mul_add(g1, sinh * g2);
    let mut p = (up * over_gamma[1]).scale(0.5);
    let mut r = (down * over_gamma[0]).scale(0.5);
    let square = u * u;
    let uq = u.scale(q);
    let mut kept = [[f, p]; MOST_TERMS + 1];
    ascending!(terms, |k| {
        let at = (k as usize).min(MOST_TERMS);
        let k = f64::from(k);
        f = f.scale_add(k, p + r).scale(q);
        p = p * uq.shift(k * q);
        r = -(r * uq.shift(-k * q));
        kept[at] = [f, f.scale_add(-k, p)];
    });
    let _ = r;
    // Backwards, so that the large first terms meet few roundings.
    let [mut sum, mut next] = kept[terms as usize];
    let mut scale = Jet::constant(1.0);
    descending!(terms, |k| {
        let at = (k as usize - 1).min(MOST_TERMS);
        let k = f64::from(k);
        scale = scale * square.scale_add(-k, Jet::constant(k * k * k));
        sum = kept[at][0].mul_add(scale, sum);
        next = kept[at][1].mul_add(scale, next);
    });
    [sum, next, scale]
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

/// e^x times K_u and (x/2) K_{u+1} by the trapezoidal rule on
/// K_u = integral over t > 0 of exp(-x cosh t) cosh(u t).
#[inline(always)]
fn trapezoid<const N: usize, const RULE: usize>(u: Jet<N>, x: f64) -> [Jet<N>; 2] {
    let step = RULE_STEP[RULE];
    let up = math::exp(step * u.value());
    let down = math::exp(-step * u.value());
    let (mut a, mut b) = (1.0, 1.0);
    let mut k = [[0.0; 3], [0.0; 3]];
    k[0][0] = 0.5;
    k[1][0] = 0.5;
    ascending!(RULE_NODES[RULE], |j| {
        let [t, sinh, cosh_1] = NODES[RULE][j as usize];
        a *= up;
        b *= down;
        let weight = 0.5 * math::exp(-x * cosh_1);
        // cosh and sinh of u t, then of (u + 1) t.
        let even = weight * (a + b);
        let odd = weight * (a - b);
        let next_even = (cosh_1 + 1.0).mul_add(even, sinh * odd);
        let next_odd = (cosh_1 + 1.0).mul_add(odd, sinh * even);
        k[0][0] += even;
        k[1][0] += next_even;
        k[0][1] = t.mul_add(odd, k[0][1]);
        k[1][1] = t.mul_add(next_odd, k[1][1]);
        k[0][2] = (0.5 * t * t).mul_add(even, k[0][2]);
        k[1][2] = (0.5 * t * t).mul_add(next_even, k[1][2]);
    });
    let slope = u.first();
    let jet = |c: [f64; 3], factor: f64| {
        let mut out = Jet::<N>::constant(c[0] * factor);
        if N > 1 {
            out.0[1] = c[1] * factor * slope;
        }
        if N > 2 {
            out.0[2] = c[2] * factor;
        }
        out
    };
    [jet(k[0], step), jet(k[1], 0.5 * x * step)]
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

/// From K_u and (x/2) K_{u+1} to (x/2)^n K_v and the ratio K_{v-1} / K_v.
#[inline(always)]
fn upward<const N: usize>(steps: i32, order: &Order<N>, x: f64, start: [Jet<N>; 2]) -> [Jet<N>; 2] {
    let q = 0.25 * x * x;
    let [mut below, mut here] = start;
    ascending!(steps, |j| {
        let j = f64::from(j);
        let more = order.n > j;
        let next = order.u.shift(j).mul_add(here, below.scale(q));
        below = Jet::select(more, here, below);
        here = Jet::select(more, next, here);
    });
    // n = 0: K_v = K_u and K_{v-1} = K_{u+1}.
    let zero = order.n == 0.0;
    let k = Jet::select(zero, start[0], here);
    let neighbour = Jet::select(zero, start[1], below);
    let factor = if zero { 2.0 / x } else { 0.5 * x };
    [k, neighbour.scale(factor).div(k)]
}

/// The same from both times 2/Gamma(1 + u) to 2 (x/2)^n K_v / Gamma(v), with the factors n at n = 0
/// and divisions, because the derivatives of k_j and of Gamma would cancel:
/// m_{j+1} = m_j + q m_{j-1} / ((u + j)(u + j - 1)) for m_j = 2 k_j / Gamma(u + j), j > 0.
#[inline(always)]
fn upward_over_gamma<const N: usize>(
    steps: i32,
    order: &Order<N>,
    x: f64,
    start: [Jet<N>; 2],
) -> [Jet<N>; 2] {
    let q = 0.25 * x * x;
    // `below` is m_{j-1} / (u + j - 1), which at j = 1 stands for a multiple of k_0.
    let [mut below, mut here] = start;
    ascending!(steps, |j| {
        let j = f64::from(j);
        let more = order.n > j;
        let over = order.u.shift(j).recip();
        let next = (below * over).scale_add(q, here);
        below = Jet::select(more, here * over, below);
        here = Jet::select(more, next, here);
    });
    let zero = order.n == 0.0;
    let k = Jet::select(zero, start[0], here);
    let neighbour = Jet::select(zero, start[1], below);
    let factor = if zero { 2.0 / x } else { 0.5 * x };
    [k, neighbour.scale(factor).div(k)]
}

/// The logarithm of K_v(x), for small x, or of e^x K_v(x), or with `MATERN` of
/// 2 (x/2)^v K_v(x) / Gamma(v), and the ratio K_{v-1} / K_v.
#[inline(always)]
fn log_and_ratio<const N: usize, const CLASS: usize, const MATERN: bool>(
    v: f64,
    x: f64,
) -> [Jet<N>; 2] {
    let order = Order::<N>::new(v);
    let u = order.u;
    let zero = order.n == 0.0;
    let choose = |at_zero, above| Jet::select(zero, at_zero, above);
    let (zeroth, one) = (Jet::constant(0.0), Jet::constant(1.0));
    let steps = STEPS[CLASS % 2];
    let log = -math::ln(0.5 * x);
    let [g1, g2] = gamma::reciprocal_gamma_parts(u);
    let over_gamma = [g2 - u * g1, g2 + u * g1];
    let (core, power, ratio);
    if CLASS / 2 < TEMME_BOUNDS.len() {
        let z = u.scale(log);
        let (up, down) = (z.exp(), (-z).exp());
        // The factor c of Temme's quantities. From order 1/2 on the whole power (x/2)^v is taken
        // off, not only (x/2)^n: else the second derivative in v would be a difference of squares
        // of its logarithm. The correlation takes it off at n = 0 too, and there also 1/Gamma(v),
        // as v / Gamma(1 + v), so that nothing is lost for small v or x.
        let at_zero = if MATERN { -(u * up) } else { one };
        let c = choose(at_zero, down);
        let parts = if MATERN { [-(u * up * up), -u] } else { [up, down] };
        let parts = [choose(parts[0], one), choose(parts[1], down * down)];
        let small = z.value().abs() < 1.0;
        let safe = Jet::select(small, one, u);
        let over = choose(if MATERN { -one } else { safe.recip() }, safe.recip());
        let sinh =
            if MATERN { choose(up * up - one, one - down * down) } else { parts[0] - parts[1] };
        let sinh = (sinh * over).scale(0.5);
        let sinh = Jet::select(small, (z * z).horner(&SINH) * c.scale(log), sinh);
        let terms = TEMME_TERMS[CLASS / 2 % TEMME_TERMS.len()];
        let [sum, next, scale] =
            temme(terms, 0.25 * x * x, u, [parts[0], parts[1], sinh], [g1, g2], over_gamma);
        if MATERN {
            let factor =
                scale.recip().scale(2.0) * choose(over_gamma[0].recip(), over_gamma[1].recip());
            [core, ratio] = upward_over_gamma(steps, &order, x, [sum * factor, next * factor]);
            power = zeroth;
        } else {
            let [k, r] = upward(steps, &order, x, [sum, next]);
            core = k.div(scale * over_gamma[0] * over_gamma[1]);
            ratio = r;
            power = choose(zeroth, Jet::linear(v, 1.0));
        }
    } else {
        let start = if CLASS / 2 == TEMME_BOUNDS.len() {
            trapezoid::<N, 0>(u, x)
        } else {
            trapezoid::<N, 1>(u, x)
        };
        if MATERN {
            let factor = choose(-(u * over_gamma[1]), over_gamma[0]).scale(2.0);
            [core, ratio] = upward_over_gamma(steps, &order, x, start.map(|k| k * factor));
            power = choose(u, -u);
        } else {
            [core, ratio] = upward(steps, &order, x, start);
            power = Jet::constant(order.n);
        }
    }
    [power.scale_add(log, core.ln()), ratio]
}

/// log(e^x K_v(x)).
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
    let [f, ratio] = log_and_ratio::<N, CLASS, false>(v, x);
    let scaled = CLASS / 2 >= TEMME_BOUNDS.len();
    let mut out = Partials {
        f: if scaled { f.value() } else { f.value() + x },
        v: f.first(),
        vv: f.second(),
        ..Partials::default()
    };
    let r = ratio.value();
    if LEVEL > 0 {
        out.x = 1.0 - (v / x + r);
    }
    if LEVEL > 2 {
        out.vx = -(1.0 / x + ratio.first());
        out.xx = 1.0 + v / x / x + (1.0 - 2.0 * v) * r / x - r * r;
    }
    out
}

/// log of the Matern correlation 2 (x/2)^nu K_nu(x) / Gamma(nu).
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
    let [f, ratio] = log_and_ratio::<N, CLASS, true>(nu, x);
    let scaled = CLASS / 2 >= TEMME_BOUNDS.len();
    let mut out = Partials {
        f: if scaled { f.value() - x } else { f.value() },
        v: f.first(),
        vv: f.second(),
        ..Partials::default()
    };
    let r = ratio.value();
    if LEVEL > 0 {
        out.x = -r;
    }
    if LEVEL > 2 {
        out.vx = -ratio.first();
        out.xx = 1.0 + (1.0 - 2.0 * nu) * r / x - r * r;
    }
    out
}
