//! Powers of moduli, fast for the exponents that people use.

use crate::simd::vectorize;
use crate::special::math;

/// How `|y|^p` is computed from `y^2`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Power {
    /// The same for all: 1.
    None,
    /// `y^2` this often.
    Squares(u32),
    /// The modulus times this many `y^2`.
    Odd(u32),
    /// `|y|^(3/2)`
    ThreeHalves,
    /// The logarithm times half of the exponent.
    Any(f64),
}

impl Power {
    pub(super) fn new(p: f64) -> Self {
        // Twice the exponent, where that is a small whole number.
        let doubled = 2.0 * p;
        let whole = (0.0..=16.0).contains(&doubled) && doubled.fract() == 0.0;
        match (whole, doubled as u32) {
            (true, 0) => Self::None,
            (true, 3) => Self::ThreeHalves,
            (true, n) if n.is_multiple_of(4) => Self::Squares(n / 4),
            (true, n) if n.is_multiple_of(2) => Self::Odd(n / 4),
            _ => Self::Any(0.5 * p),
        }
    }

    /// Calls `body` with the function of squares, compiled for this power.
    #[inline(always)]
    fn with<R>(self, body: impl PowerBody<R>) -> R {
        match self {
            Self::None => body.run(
                #[inline(always)]
                |_| 1.0,
            ),
            Self::Squares(1) => body.run(
                #[inline(always)]
                |s| s,
            ),
            Self::Squares(2) => body.run(
                #[inline(always)]
                |s| s * s,
            ),
            Self::Squares(n) => body.run(
                #[inline(always)]
                move |s| (1..n).fold(s, |power, _| power * s),
            ),
            Self::Odd(0) => body.run(
                #[inline(always)]
                |s: f64| s.sqrt(),
            ),
            Self::Odd(n) => body.run(
                #[inline(always)]
                move |s| (0..n).fold(s.sqrt(), |power, _| power * s),
            ),
            Self::ThreeHalves => body.run(
                #[inline(always)]
                |s| {
                    let modulus = s.sqrt();
                    modulus * modulus.sqrt()
                },
            ),
            Self::Any(half) => body.run(
                #[inline(always)]
                move |s| {
                    let power = math::exp(half * math::ln(s));
                    if s > 0.0 { power } else { 0.0 }
                },
            ),
        }
    }

    /// The sum of `weights_j |y_j|^p`.
    pub(super) fn sum(self, y: &[f64], weights: &[f64]) -> f64 {
        self.with(Sum { y, weights })
    }

    /// `out_j += weight |y_j|^p`
    pub(super) fn add(self, y: &[f64], weight: f64, out: &mut [f64]) {
        self.with(Add { y, weight, out });
    }

    /// `out_j = weights_j (y_j^2 + floor)^(p / 2)`
    pub(super) fn weigh(self, y: &[f64], weights: &[f64], floor: f64, out: &mut [f64]) {
        self.with(Weigh { y, weights, floor, out });
    }
}

/// A loop over powers.
trait PowerBody<R> {
    fn run(self, power: impl Fn(f64) -> f64) -> R;
}

struct Sum<'a> {
    y: &'a [f64],
    weights: &'a [f64],
}

impl PowerBody<f64> for Sum<'_> {
    #[inline(always)]
    fn run(self, power: impl Fn(f64) -> f64) -> f64 {
        vectorize(
            #[inline(always)]
            || {
                let mut sums = [0.0; 16];
                let (y, w) = (self.y.as_chunks::<16>(), self.weights.as_chunks::<16>());
                for (y, w) in y.0.iter().zip(w.0) {
                    for i in 0..16 {
                        sums[i] = w[i].mul_add(power(y[i] * y[i]), sums[i]);
                    }
                }
                for ((sum, &y), &w) in sums.iter_mut().zip(y.1).zip(w.1) {
                    *sum = w.mul_add(power(y * y), *sum);
                }
                sums.iter().sum()
            },
        )
    }
}

struct Add<'a> {
    y: &'a [f64],
    weight: f64,
    out: &'a mut [f64],
}

impl PowerBody<()> for Add<'_> {
    #[inline(always)]
    fn run(self, power: impl Fn(f64) -> f64) {
        let Self { y, weight, out } = self;
        vectorize(
            #[inline(always)]
            || {
                for (out, &y) in out.iter_mut().zip(y) {
                    *out = weight.mul_add(power(y * y), *out);
                }
            },
        );
    }
}

struct Weigh<'a> {
    y: &'a [f64],
    weights: &'a [f64],
    floor: f64,
    out: &'a mut [f64],
}

impl PowerBody<()> for Weigh<'_> {
    #[inline(always)]
    fn run(self, power: impl Fn(f64) -> f64) {
        let Self { y, weights, floor, out } = self;
        vectorize(
            #[inline(always)]
            || {
                for ((out, &y), &w) in out.iter_mut().zip(y).zip(weights) {
                    *out = w * power(y.mul_add(y, floor));
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_those_of_the_standard_library() {
        let y: Vec<f64> = (0..37).map(|i| f64::from(i) * 0.37 - 5.0).chain([0.0]).collect();
        let weights: Vec<f64> = (0..38).map(|i| f64::from(i % 4)).collect();
        for p in [0.5, 1.0, 1.5, 2.0, 2.7, 3.0, 4.0, 5.0, 6.0, 8.0, 16.0, 32.0] {
            let power = Power::new(p);
            let expected: f64 = y.iter().zip(&weights).map(|(y, w)| w * y.abs().powf(p)).sum();
            let found = power.sum(&y, &weights);
            assert!((found - expected).abs() < 1e-13 * expected, "{p}");
            let mut added = vec![1.0; y.len()];
            power.add(&y, 2.0, &mut added);
            let mut weighed = vec![0.0; y.len()];
            power.weigh(&y, &weights, 0.25, &mut weighed);
            for i in 0..y.len() {
                let one = y[i].abs().powf(p);
                assert!((added[i] - 1.0 - 2.0 * one).abs() <= 4e-14 * (1.0 + one), "{p}");
                let one = weights[i] * (y[i] * y[i] + 0.25).powf(p / 2.0);
                assert!((weighed[i] - one).abs() <= 4e-14 * one, "{p}");
            }
        }
        assert_eq!(Power::new(0.0), Power::None);
    }
}
