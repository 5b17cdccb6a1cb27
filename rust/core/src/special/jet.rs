//! Truncated Taylor arithmetic in the order of a Bessel function.
//!
//! An algorithm written once over [`Jet`] gives the value with `N = 1`, and its first or second
//! derivative in the order too with `N = 2` or `3`: no difference quotients, no second formula.

use core::ops::{Add, Mul, Neg, Sub};

use super::math;

/// A function of (v, x) and its partial derivatives, as far as the level asks for them.
///
/// Level 0: `f`; 1: also `x`; 2: also `v`; 3: all. What was not asked for is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Partials {
    pub f: f64,
    pub v: f64,
    pub x: f64,
    pub vv: f64,
    pub vx: f64,
    pub xx: f64,
}

/// The Taylor coefficients f, f', f''/2 of a function, the first `N` of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jet<const N: usize>(pub [f64; N]);

impl<const N: usize> Jet<N> {
    #[inline(always)]
    pub(crate) fn constant(c: f64) -> Self {
        Self::linear(c, 0.0)
    }

    /// `value + slope t`.
    #[inline(always)]
    pub(crate) fn linear(value: f64, slope: f64) -> Self {
        let mut c = [0.0; N];
        c[0] = value;
        if const { N > 1 } {
            c[1] = slope;
        }
        Self(c)
    }

    /// The first `N` of these Taylor coefficients.
    #[inline(always)]
    pub(crate) fn taylor(c: [f64; 3]) -> Self {
        Self(core::array::from_fn(|i| c[i]))
    }

    #[inline(always)]
    pub(crate) fn value(self) -> f64 {
        self.0[0]
    }

    /// f', 0 where the jet does not carry it.
    #[inline(always)]
    pub(crate) fn first(self) -> f64 {
        if const { N > 1 } { self.0[1] } else { 0.0 }
    }

    /// f'', 0 where the jet does not carry it.
    #[inline(always)]
    pub(crate) fn second(self) -> f64 {
        if const { N > 2 } { 2.0 * self.0[2] } else { 0.0 }
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let mut c = [0.0; N];
        c[0] = f(self.0[0], other.0[0]);
        if const { N > 1 } {
            c[1] = f(self.0[1], other.0[1]);
        }
        if const { N > 2 } {
            c[2] = f(self.0[2], other.0[2]);
        }
        Self(c)
    }

    /// `self` where the condition holds, else `other`: a blend, not a branch.
    #[inline(always)]
    pub(crate) fn select(condition: bool, this: Self, other: Self) -> Self {
        this.zip(other, |a, b| if condition { a } else { b })
    }

    #[inline(always)]
    pub(crate) fn scale(self, factor: f64) -> Self {
        self.zip(self, |a, _| a * factor)
    }

    #[inline(always)]
    pub(crate) fn shift(self, c: f64) -> Self {
        let mut out = self;
        out.0[0] += c;
        out
    }

    /// `self * factor + c`, each coefficient rounded once.
    #[inline(always)]
    pub(crate) fn scale_add(self, factor: f64, c: Self) -> Self {
        self.zip(c, |a, b| a.mul_add(factor, b))
    }

    /// `self * b + c`.
    #[inline(always)]
    pub(crate) fn mul_add(self, b: Self, c: Self) -> Self {
        let (a, b, mut c) = (self.0, b.0, c.0);
        if const { N > 2 } {
            c[2] = a[2].mul_add(b[0], a[1].mul_add(b[1], a[0].mul_add(b[2], c[2])));
        }
        if const { N > 1 } {
            c[1] = a[1].mul_add(b[0], a[0].mul_add(b[1], c[1]));
        }
        c[0] = a[0].mul_add(b[0], c[0]);
        Self(c)
    }

    #[inline(always)]
    pub(crate) fn recip(self) -> Self {
        let r = 1.0 / self.0[0];
        let mut c = [0.0; N];
        c[0] = r;
        if const { N > 1 } {
            c[1] = -r * (self.0[1] * r);
        }
        if const { N > 2 } {
            c[2] = -r * self.0[2].mul_add(c[0], self.0[1] * c[1]);
        }
        Self(c)
    }

    /// `self / other`, the value rounded once.
    #[inline(always)]
    pub(crate) fn div(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        let mut c = [0.0; N];
        c[0] = a[0] / b[0];
        if const { N > 1 } {
            let r = 1.0 / b[0];
            c[1] = (-c[0]).mul_add(b[1], a[1]) * r;
            if const { N > 2 } {
                c[2] = (-c[0]).mul_add(b[2], (-c[1]).mul_add(b[1], a[2])) * r;
            }
        }
        Self(c)
    }

    #[inline(always)]
    pub(crate) fn exp(self) -> Self {
        let e = math::exp(self.0[0]);
        let mut c = [0.0; N];
        c[0] = e;
        if const { N > 1 } {
            c[1] = e * self.0[1];
        }
        if const { N > 2 } {
            c[2] = e * (0.5 * self.0[1]).mul_add(self.0[1], self.0[2]);
        }
        Self(c)
    }

    /// The derivatives of ln f, with `value` for its value.
    #[inline(always)]
    pub(crate) fn ln_with_value(self, value: f64) -> Self {
        let mut c = [0.0; N];
        c[0] = value;
        if const { N > 1 } {
            let r = 1.0 / self.0[0];
            c[1] = self.0[1] * r;
            if const { N > 2 } {
                c[2] = self.0[2].mul_add(r, -0.5 * c[1] * c[1]);
            }
        }
        Self(c)
    }

    #[inline(always)]
    pub(crate) fn ln(self) -> Self {
        self.ln_with_value(math::ln(self.0[0]))
    }

    /// The polynomial with coefficients `c`, constant term first.
    #[inline(always)]
    pub(crate) fn horner<const K: usize>(self, c: &[f64; K]) -> Self {
        let mut sum = Self::constant(c[K - 1]);
        for k in (0..K - 1).rev() {
            sum = sum.mul_add(self, Self::constant(c[k]));
        }
        sum
    }
}

/// The longest loop that `ascending` and `descending` unroll.
pub(crate) const UNROLLED: usize = 55;

/// Straight-line code for `$k` = 1, .., `$n`, a constant `i32` of at most `UNROLLED`: a rolled
/// inner loop would keep the loop over points from being vectorised.
macro_rules! ascending {
    ($n:expr, |$k:ident| $body:block) => {
        ascending!(@ $n, $k, $body, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20
            21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40
            41 42 43 44 45 46 47 48 49 50 51 52 53 54 55)
    };
    (@ $n:expr, $k:ident, $body:block, $($i:literal)*) => {
        $(if const { $i <= $n } {
            let $k: i32 = $i;
            // What the last round leaves for the next one is not read.
            #[allow(unused_assignments)]
            $body
        })*
    };
}
pub(crate) use ascending;

/// The same for `$k` = `$n`, .., 1.
macro_rules! descending {
    ($n:expr, |$k:ident| $body:block) => {
        descending!(@ $n, $k, $body, 55 54 53 52 51 50 49 48 47 46 45 44 43 42 41
            40 39 38 37 36 35 34 33 32 31 30 29 28 27 26 25 24 23 22 21 20 19 18 17 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1)
    };
    (@ $n:expr, $k:ident, $body:block, $($i:literal)*) => {
        $(if const { $i <= $n } {
            let $k: i32 = $i;
            // What the last round leaves for the next one is not read.
            #[allow(unused_assignments)]
            $body
        })*
    };
}
pub(crate) use descending;

impl<const N: usize> Add for Jet<N> {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl<const N: usize> Sub for Jet<N> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl<const N: usize> Neg for Jet<N> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        self.zip(self, |a, _| -a)
    }
}

impl<const N: usize> Mul for Jet<N> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        let mut c = [0.0; N];
        c[0] = a[0] * b[0];
        if const { N > 1 } {
            c[1] = a[1].mul_add(b[0], a[0] * b[1]);
        }
        if const { N > 2 } {
            c[2] = a[2].mul_add(b[0], a[1].mul_add(b[1], a[0] * b[2]));
        }
        Self(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// t = 0.3 + s, to second order in s.
    const T: Jet<3> = Jet([0.3, 1.0, 0.0]);

    fn assert_close(ours: Jet<3>, [f, d, dd]: [f64; 3]) {
        for (a, b) in [ours.value(), ours.first(), ours.second()].into_iter().zip([f, d, dd]) {
            assert!((a - b).abs() <= 4e-16 * b.abs().max(1.0), "{a} is not {b}");
        }
    }

    #[test]
    fn a_quotient_has_the_derivatives_of_its_closed_form() {
        // (1 + t^2) / (2 - t) = 5 / (2 - t) - t - 2.
        let ours = (T * T).shift(1.0).div((-T).shift(2.0));
        let r = 1.0 / 1.7;
        assert_close(ours, [1.09 * r, 5.0 * r * r - 1.0, 10.0 * r * r * r]);
        assert_close((-T).shift(2.0).recip(), [r, r * r, 2.0 * r * r * r]);
    }

    #[test]
    fn exponential_and_logarithm_are_inverse_to_second_order() {
        let inner = (T * T).scale(2.0);
        assert_close(inner.exp().ln(), [0.18, 1.2, 4.0]);
    }

    #[test]
    fn horner_gives_the_derivatives_of_the_polynomial() {
        // 1 - 2 t + 3 t^3.
        assert_close(T.horner(&[1.0, -2.0, 0.0, 3.0]), [0.481, -1.19, 5.4]);
    }

    #[test]
    fn a_short_jet_is_the_head_of_a_long_one() {
        let long = T.mul_add(T.exp(), T.ln());
        let short = Jet([0.3, 1.0]);
        let short = short.mul_add(short.exp(), short.ln());
        assert_eq!(short.0.map(f64::to_bits), [long.0[0].to_bits(), long.0[1].to_bits()]);
    }

    #[test]
    fn unrolled_loops_visit_every_index_once_in_order() {
        const ALL: i32 = 55;
        assert_eq!(UNROLLED, 55);
        let (mut up, mut down) = (Vec::new(), Vec::new());
        ascending!(ALL, |k| {
            up.push(k);
        });
        descending!(7, |k| {
            down.push(k);
        });
        assert_eq!(up, (1..=ALL).collect::<Vec<_>>());
        assert_eq!(down, (1..=7).rev().collect::<Vec<_>>());
    }
}
