//! The uniform expansion: every function for s = hypot(v, x) >= 22, whatever v / x.
//!
//! With y = 1/s and w = (v/s)^2, Debye's expansion (DLMF 10.41.3, 10.41.4) reads
//!
//! ```text
//! log I_v(x) =   s - v L  - ln(2 pi)/2 - ln(s)/2 + T(w, y),      L = asinh(v/x),
//! log K_v(x) = -(s - v L) + ln(pi/2)/2 - ln(s)/2 + T(w, -y),     T = sum_k D_k(w) y^k.
//! ```
//!
//! Written in 1/s instead of the customary 1/v it is regular at v = 0, where it is Hankel's
//! expansion. A sign `sigma`, +1 for I and -1 for K, makes the two one formula in sigma y, and all
//! derivatives follow from those of T by
//!
//! ```text
//! d/dx [y^n F(w, y)] = -x y^(n+2) (n F + y F_y + 2 w F_w)
//! d/dv [y^n F(w, y)] = -v y^(n+2) (n F + y F_y - 2 (1 - w) F_w).
//! ```
//!
//! The functions are written for one element, without branches, and are widened by the caller.

use super::debye_table::{D, TERMS};
use super::gamma;
use super::jet::{Jet, Partials};
use super::math::{horner, ln, ln_1p};

/// From here on the expansion is used.
pub(crate) const START: f64 = 22.0;

/// Lower ends of the bins of s; each bin has its own number of terms.
pub(crate) const BINS: [f64; 4] = [START, 32.0, 80.0, 1000.0];

/// The extreme bin: any s, with guards against overflow and underflow of squares and quotients. The
/// others assume s <= 1e150 and x >= 1e-280.
pub(crate) const EXTREME: usize = BINS.len();

/// Terms per bin that leave less than 1e-16 of the logarithms.
const VALUE_TERMS: [usize; 5] = [19, 14, 9, 5, TERMS];

/// Terms per bin for derivatives and ratios, where the k-th term is k times as large.
const SLOPE_TERMS: [usize; 5] = [24, 16, 10, 6, TERMS];

/// ln(2 pi) / 2 and ln(pi / 2) / 2.
const HALF_LN_2PI: f64 = 0.9189385332046728;
const HALF_LN_HALF_PI: f64 = 0.22579135264472744;

/// A function F(w, y) with its partial derivatives, those in y multiplied by as many powers of y.
#[derive(Clone, Copy, Default)]
struct Series {
    f: f64,
    w: f64,
    y: f64,
    ww: f64,
    wy: f64,
    yy: f64,
}

/// Row k of the table as the coefficients of `D_k`.
const fn row_of_d<const N: usize>() -> [f64; N] {
    let k = N - 1;
    let start = k * (k + 1) / 2 - 1;
    let mut row = [0.0; N];
    let mut j = 0;
    while j < N {
        row[j] = D[start + j];
        j += 1;
    }
    row
}

/// The coefficients of `E_k` = k `D_k` + 2 w `D_k`'.
const fn row_of_e<const N: usize>() -> [f64; N] {
    let mut row = row_of_d::<N>();
    let mut j = 0;
    while j < N {
        row[j] *= (N - 1 + 2 * j) as f64;
        j += 1;
    }
    row
}

/// A polynomial in w with its first two derivatives, as far as `LEVEL` asks for them.
#[inline(always)]
fn polynomial<const N: usize, const LEVEL: usize>(c: &[f64; N], w: f64) -> [f64; 3] {
    if LEVEL == 0 {
        return [horner(c, w), 0.0, 0.0];
    }
    let (mut f, mut first, mut half_second) = (c[N - 1], 0.0f64, 0.0f64);
    for k in (0..N - 1).rev() {
        if LEVEL == 3 {
            half_second = half_second.mul_add(w, first);
        }
        first = first.mul_add(w, f);
        f = f.mul_add(w, c[k]);
    }
    [f, first, 2.0 * half_second]
}

/// Sums the listed rows, last first, by Horner's rule in y; straight-line code for each `K`.
macro_rules! sum_of_rows {
    ($row:ident, $level:ident, $terms:ident, $w:ident, $y:ident, $start:expr, $($k:literal)*) => {{
        let mut sum = Series::default();
        // Derivatives in y of the sum over k from the rows k y^(k-1), k (k-1) y^(k-2).
        $(if $terms >= $k {
            let c = const { $row::<{ $k + 1 }>() };
            let [f, w, ww] = polynomial::<{ $k + 1 }, $level>(&c, $w);
            sum.f = sum.f.mul_add($y, f);
            if $level >= 1 {
                sum.w = sum.w.mul_add($y, w);
                sum.y = sum.y.mul_add($y, f64::from($k) * f);
            }
            if $level >= 3 {
                sum.ww = sum.ww.mul_add($y, ww);
                sum.wy = sum.wy.mul_add($y, f64::from($k) * w);
                sum.yy = sum.yy.mul_add($y, f64::from($k * ($k - 1)) * f);
            }
        })*
        Series {
            f: sum.f.mul_add($y, $start),
            w: sum.w * $y,
            y: sum.y * $y,
            ww: sum.ww * $y,
            wy: sum.wy * $y,
            yy: sum.yy * $y,
        }
    }};
}

/// T(w, y), the sum of `D_k(w)` y^k over k >= 1.
#[inline(always)]
fn sum_of_d<const BIN: usize, const LEVEL: usize>(w: f64, y: f64) -> Series {
    let terms = const { if LEVEL == 0 { VALUE_TERMS[BIN] } else { SLOPE_TERMS[BIN] } };
    sum_of_rows!(row_of_d, LEVEL, terms, w, y, 0.0,
        24 23 22 21 20 19 18 17 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1)
}

/// G(w, y), the sum of `E_k(w)` y^k over k >= 0, where `E_0` = 1/2.
#[inline(always)]
fn sum_of_e<const BIN: usize, const LEVEL: usize>(w: f64, y: f64) -> Series {
    let terms = const { SLOPE_TERMS[BIN] };
    sum_of_rows!(row_of_e, LEVEL, terms, w, y, 0.5,
        24 23 22 21 20 19 18 17 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1)
}

/// A point (v, x) with what all formulas share.
#[derive(Clone, Copy)]
struct Point {
    v: f64,
    x: f64,
    s: f64,
    /// 1 / s
    y: f64,
    /// (v / s)^2
    w: f64,
    /// 1 - w = (x / s)^2
    u: f64,
}

impl Point {
    #[inline(always)]
    fn new<const BIN: usize>(v: f64, x: f64) -> Self {
        let s = if BIN == EXTREME {
            let (small, large) = if v < x { (v, x) } else { (x, v) };
            let t = small / large;
            large * t.mul_add(t, 1.0).sqrt()
        } else {
            v.mul_add(v, x * x).sqrt()
        };
        let y = 1.0 / s;
        let (p, q) = (v * y, x * y);
        Self { v, x, s, y, w: p * p, u: q * q }
    }

    /// s - x, without cancellation.
    #[inline(always)]
    fn s_minus_x(&self) -> f64 {
        self.v * (self.v / (self.s + self.x))
    }

    /// s - v, without cancellation.
    #[inline(always)]
    fn s_minus_v(&self) -> f64 {
        self.x * (self.x / (self.s + self.v))
    }
}

/// asinh(v / x) and 1 / x, with one division. `EXTREME` points need three.
#[inline(always)]
fn asinh_of_quotient<const BIN: usize>(p: &Point) -> [f64; 2] {
    let Point { v, x, s, .. } = *p;
    if BIN == EXTREME {
        // Beyond 1e300 the quotient may overflow; there s = v.
        let quotient = (v + p.s_minus_x()) / x;
        let apart = ln(v) + core::f64::consts::LN_2 - ln(x);
        return [if quotient < 1e300 { ln_1p(quotient) } else { apart }, 1.0 / x];
    }
    // (v + s - x) / x, where s - x = v^2 / (s + x).
    let sum = s + x;
    let inverse = 1.0 / (sum * x);
    [ln_1p(v * (sum + v) * inverse), sum * inverse]
}

/// T(w, sigma y), with the derivatives of T - ln(s)/2.
#[inline(always)]
fn common_part<const LEVEL: usize, const BIN: usize>(p: &Point, signed_y: f64) -> Partials {
    let Point { v, x, y, w, u, .. } = *p;
    if LEVEL == 1 {
        // Two plain sums take less than one with its partial derivatives.
        let (t, g) = (sum_of_d::<BIN, 0>(w, signed_y), sum_of_e::<BIN, 0>(w, signed_y));
        return Partials { f: t.f, x: -(x * y) * y * g.f, ..Partials::default() };
    }
    let t = sum_of_d::<BIN, LEVEL>(w, signed_y);
    let y2 = y * y;
    let mut out = Partials { f: t.f, ..Partials::default() };
    // E = y T_y + 2 w T_w and F = 2 (1 - w) T_w - y T_y, so that T_x = -x y^2 E, T_v = v y^2 F.
    let e = (2.0 * w).mul_add(t.w, t.y);
    let f = (2.0 * u).mul_add(t.w, -t.y);
    if LEVEL >= 2 {
        out.x = -(x * y) * y * (0.5 + e);
        out.v = (v * y) * y * (f - 0.5);
    }
    if LEVEL >= 3 {
        let (e_w, e_y) = (t.wy + 2.0 * (t.w + w * t.ww), t.y + t.yy + 2.0 * w * t.wy);
        let (f_w, f_y) = (2.0 * (u * t.ww - t.w) - t.wy, 2.0 * u * t.wy - t.y - t.yy);
        out.xx = y2 * (u * (1.0 + 2.0 * e + e_y + 2.0 * w * e_w) - (0.5 + e));
        out.vv = y2 * ((f - 0.5) - w * (2.0 * f - 1.0 + f_y - 2.0 * u * f_w));
        out.vx = (x * y) * (v * y) * y2 * (1.0 - 2.0 * f - f_y - 2.0 * w * f_w);
    }
    out
}

/// log `I_v(x)` for `sigma` = 1, log `K_v(x)` for `sigma` = -1; with `SCALED`, of
/// e^(-sigma x) times the function.
#[inline(always)]
pub(crate) fn log_bessel<const LEVEL: usize, const BIN: usize, const SCALED: bool>(
    sigma: f64,
    v: f64,
    x: f64,
) -> Partials {
    let p = Point::new::<BIN>(v, x);
    let mut out = common_part::<LEVEL, BIN>(&p, sigma * p.y);
    let [l, over_x] = asinh_of_quotient::<BIN>(&p);
    let constant = if sigma > 0.0 { -HALF_LN_2PI } else { HALF_LN_HALF_PI };
    let s = if SCALED { p.s_minus_x() } else { p.s };
    out.f += (-0.5f64).mul_add(ln(p.s), constant);
    out.f += sigma * (-v).mul_add(l, s);
    if LEVEL >= 1 {
        out.x += sigma * (s * over_x);
    }
    if LEVEL >= 2 {
        out.v -= sigma * l;
    }
    if LEVEL >= 3 {
        let slope = v * over_x;
        out.xx -= sigma * (slope * p.y) * slope;
        out.vx += sigma * (slope * p.y);
        out.vv -= sigma * p.y;
    }
    out
}

/// r = `I_(v+1)(x)` / `I_v(x)`, or 1 - r with `COMPLEMENT`, from
///
/// ```text
/// r = x / (s + v) - x y^2 G(w, y),    1 - r = (v + s - x) / (s + v) + x y^2 G(w, y).
/// ```
///
/// Their second derivative in v is not offered.
#[inline(always)]
pub(crate) fn ratio<const LEVEL: usize, const BIN: usize, const COMPLEMENT: bool>(
    v: f64,
    x: f64,
) -> Partials {
    let p = Point::new::<BIN>(v, x);
    let Point { s, y, w, u, .. } = p;
    let g = sum_of_e::<BIN, LEVEL>(w, y);
    let a = 1.0 / (s + v);
    let (xy, y2) = (x * y, y * y);
    let series = xy * y * g.f;
    let sign = if COMPLEMENT { -1.0 } else { 1.0 };
    let value = if COMPLEMENT { (v + p.s_minus_x()) * a + series } else { x.mul_add(a, -series) };
    let mut out = Partials { f: value, ..Partials::default() };
    // d/dx [y^2 G] = -x y^4 Q, d/dv [y^2 G] = -v y^4 R.
    let q = 2.0 * g.f + g.y + 2.0 * w * g.w;
    let r = 2.0 * g.f + g.y - 2.0 * u * g.w;
    if LEVEL >= 1 {
        out.x = sign * (v * y).mul_add(a, -y2 * (g.f - u * q));
    }
    if LEVEL >= 2 {
        out.v = sign * xy * (v * y * y2).mul_add(r, -a);
    }
    if LEVEL >= 3 {
        let q_y = 3.0 * g.y + g.yy + 2.0 * w * g.wy;
        let q_w = 4.0 * g.w + g.wy + 2.0 * w * g.ww;
        let (vy, y3) = (v * y, y * y2);
        out.xx = sign
            * xy
            * (y3 * (3.0 * q - u * (4.0 * q + q_y + 2.0 * w * q_w)) - (vy * a) * a * (2.0 + vy));
        let r_y = 3.0 * g.y + g.yy - 2.0 * u * g.wy;
        let r_w = 4.0 * g.w + g.wy - 2.0 * u * g.ww;
        out.vx =
            sign * y * ((1.0 - vy - w) * a + vy * y2 * (r - u * (4.0 * r + r_y + 2.0 * w * r_w)));
    }
    out
}

/// ln Gamma(b) with its derivatives, for 0 < b < 10.
#[inline(always)]
fn ln_gamma(b: f64) -> Jet<3> {
    let r = 1.0 / b;
    gamma::ln_gamma_1p::<3>(b) - Jet([ln(b), r, -0.5 * r * r])
}

/// The second derivative of ln Gamma(b), for b > 0.
pub(crate) fn trigamma(b: f64) -> f64 {
    if b < 8.0 {
        return ln_gamma(b).second();
    }
    let r = 1.0 / b;
    (0.5 * r).mul_add(r, r) + gamma::binet::<3>(b).second()
}

/// The functions that are 0 at x = 0: with `sigma` = 1, log 0F1(; b; x^2/4) with b = nu + 1 and its
/// derivatives in b and z = x^2/4; with `sigma` = -1, the log of the Matern correlation, where
/// b = nu, with its derivatives in nu and x.
///
/// ```text
/// f = sigma (d - nu log1p(d / 2 nu)) - log1p(d / nu)/2 + T(w, sigma y) + sigma binet(nu)
/// ```
///
/// with d = s - nu for nu >= 8; below (`LOW`), the same with the Gamma function spelt out:
///
/// ```text
/// f = sigma (s - nu log((s + nu)/2) - log(2 pi)/2 + log Gamma(b)) - log(s)/2 + T(w, sigma y).
/// ```
#[inline(always)]
pub(crate) fn reduced<const LEVEL: usize, const BIN: usize, const LOW: bool>(
    sigma: f64,
    b: f64,
    x: f64,
) -> Partials {
    let nu = if sigma > 0.0 { b - 1.0 } else { b };
    let p = Point::new::<BIN>(nu, x);
    let Point { s, y, w, u, .. } = p;
    let t = sum_of_d::<BIN, LEVEL>(w, sigma * y);
    let mut out = Partials { f: t.f, ..Partials::default() };
    // The derivatives in nu, but for those of T: that of the rest is -sigma times a logarithm, ..
    let y2 = y * y;
    if LOW {
        let g = ln_gamma(b);
        let l = ln(0.5 * (s + nu));
        out.f += -0.5 * ln(s) + sigma * ((-nu).mul_add(l, s) - HALF_LN_2PI + g.value());
        out.v = sigma * (g.first() - l) - 0.5 * (nu * y) * y;
        out.vv = sigma * (g.second() - y) + y2 * (w - 0.5);
    } else {
        let c = gamma::binet::<3>(nu);
        let d = p.s_minus_v();
        let (r, d_nu) = (1.0 / nu, d / nu);
        let l = ln_1p(0.5 * d_nu);
        // d - nu l; where d / nu may underflow, the first term of the series.
        let rest = (-nu).mul_add(l, d);
        let rest = if BIN == EXTREME && d_nu < 1e-20 { 0.5 * d } else { rest };
        out.f += sigma * c.value() - 0.5 * ln_1p(d_nu) + sigma * rest;
        out.v = sigma * (c.first() - l) + 0.5 * u * r;
        // y^2 (w - 1/2) - 1/(2 nu^2), which would cancel where x is small.
        out.vv = sigma * (c.second() + d_nu * y) - u * y2 - 0.5 * (d_nu * y) * (y + r);
    }
    // .. and the one in x is x h, h = sigma / (s + nu) - y^2 (1/2 + E), without cancellation.
    let a = 1.0 / (s + nu);
    let e = (2.0 * w).mul_add(t.w, t.y);
    let f = (2.0 * u).mul_add(t.w, -t.y);
    let h = (-y2).mul_add(0.5 + e, sigma * a);
    out.v += (nu * y) * y * f;
    out.x = if sigma > 0.0 { 2.0 * h } else { x * h };
    if LEVEL >= 3 {
        let (e_w, e_y) = (t.wy + 2.0 * (t.w + w * t.ww), t.y + t.yy + 2.0 * w * t.wy);
        let (f_w, f_y) = (2.0 * (u * t.ww - t.w) - t.wy, 2.0 * u * t.wy - t.y - t.yy);
        out.vv += y2 * (f - w * (2.0 * f + f_y - 2.0 * u * f_w));
        // dh/dx / x and dh/dnu.
        let curve = 1.0 + 2.0 * e + e_y;
        let h_x = y * (y * y2 * (curve + 2.0 * w * e_w) - sigma * a * a);
        let h_v = y * ((nu * y) * y2 * (curve - 2.0 * u * e_w) - sigma * a);
        if sigma > 0.0 {
            out.xx = 4.0 * h_x;
            out.vx = 2.0 * h_v;
        } else {
            // h + x^2 dh/dx / x, whose leading terms cancel where x is large.
            out.xx = sigma * (nu * y) * a + y2 * (u * (curve + 2.0 * w * e_w) - (0.5 + e));
            out.vx = x * h_v;
        }
    }
    // What a level does not ask for is dead code up to here.
    Partials {
        f: out.f,
        v: if LEVEL >= 2 { out.v } else { 0.0 },
        x: if LEVEL >= 1 { out.x } else { 0.0 },
        ..if LEVEL >= 3 { out } else { Partials::default() }
    }
}
