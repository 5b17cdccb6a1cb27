//! The argument of a given Bessel ratio: the concentration of a mean resultant length.

use super::Function;
use super::drive;

/// Halley's method triples the correct digits: after a step this small the next one is rounding.
const SETTLED: f64 = 1e-6;

/// Two or three steps suffice everywhere; the rest is for targets at the ends of the range.
const MAX_STEPS: usize = 8;

/// Solves r(v, x) = r for x, elementwise, given the targets r and 1 - r; overwrites `x`.
///
/// The residual is formed with r up to one half, where the complement that came does not count, and
/// with 1 - r above, where r has lost its digits.
pub(crate) fn solve(v: &[f64], r: &[f64], complement: &[f64], x: &mut [f64]) {
    for function in [Function::BesselRatio, Function::BesselRatioComplement] {
        let of_complement = function == Function::BesselRatioComplement;
        let mut problems: Vec<Problem> = Vec::new();
        for i in 0..x.len() {
            let complement = if r[i] > 0.5 { complement[i] } else { 1.0 - r[i] };
            let inside = v[i] >= 0.0
                && v[i] < f64::INFINITY
                && (0.0..=1.0).contains(&r[i])
                && (0.0..=1.0).contains(&complement);
            if !inside {
                x[i] = f64::NAN;
            } else if complement == 0.0 {
                x[i] = f64::INFINITY;
            } else if r[i] == 0.0 {
                x[i] = 0.0;
            } else if (r[i] > 0.5) == of_complement {
                problems.push(Problem::new(i, v[i], r[i], complement));
            }
        }
        run(function, &mut problems);
        for problem in problems {
            x[problem.place] = problem.x;
        }
    }
}

/// One equation, with a bracket of its solution.
struct Problem {
    place: usize,
    v: f64,
    r: f64,
    complement: f64,
    low: f64,
    high: f64,
    x: f64,
    settled: bool,
}

impl Problem {
    fn new(place: usize, v: f64, r: f64, complement: f64) -> Self {
        // (1 - r) (1 + r)
        let rest = complement * (1.0 + r);
        // Hornik and Grün (2013), building on Amos (1974): the ratio lies between functions
        // x / (a + sqrt(x^2 + b^2)), whose inverses are explicit.
        let inverse = |a: f64, b: f64| r * ((a + (a * r).hypot(b * rest.sqrt())) / rest);
        let low = inverse(v, v + 2.0).max(inverse(v + 0.5, (v + 0.5).sqrt() * (v + 1.5).sqrt()));
        let high = inverse(v + 0.5, v + 1.5);
        // Banerjee et al. (2005), with d = 2 v + 2.
        let start = r * ((2.0 * v + 2.0 - r * r) / rest);
        Self { place, v, r, complement, low, high, x: start.max(low).min(high), settled: false }
    }

    /// Halley's step from the value and slope of the ratio, or of its complement. Steps end for each
    /// problem by itself, so that its bits do not depend on its neighbours.
    fn step(&mut self, of_complement: bool, value: f64, slope: f64) {
        if self.settled {
            return;
        }
        let Self { v, x, .. } = *self;
        let (residual, ratio, slope) = if of_complement {
            (self.complement - value, 1.0 - value, -slope)
        } else {
            (value - self.r, value, slope)
        };
        // r'' from r' = 1 - r^2 - (2 v + 1) r / x.
        let curvature = (2.0 * v + 1.0) / x * (ratio / x - slope) - 2.0 * ratio * slope;
        let newton = residual / slope;
        let next = x - newton / (1.0 - 0.5 * newton * curvature / slope);
        // Rounding can put the solution on, or an ulp beyond, an end of the bracket.
        let slack = 4.0 * f64::EPSILON;
        let next = next.max(self.low * (1.0 - slack)).min(self.high * (1.0 + slack));
        // Not a number where x is infinite, already exact.
        self.settled = !((next - x).abs() > SETTLED * x);
        if next.is_finite() {
            self.x = next;
        }
    }
}

fn run(function: Function, problems: &mut [Problem]) {
    let of_complement = function == Function::BesselRatioComplement;
    let v: Vec<f64> = problems.iter().map(|p| p.v).collect();
    for _ in 0..MAX_STEPS {
        if problems.iter().all(|p| p.settled) {
            break;
        }
        let x: Vec<f64> = problems.iter().map(|p| p.x).collect();
        drive::evaluate_chunk(function, 1, &v, &x, &mut |places, tile| {
            for (lane, &place) in places.iter().enumerate() {
                problems[place as usize].step(of_complement, tile[0][lane], tile[2][lane]);
            }
        });
    }
}
