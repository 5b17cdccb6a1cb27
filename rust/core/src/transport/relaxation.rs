//! How far to step beyond Sinkhorn's own step, learnt from how the error falls.

/// Iterations of a window over which the error's fall is measured.
const WINDOW: usize = 10;
/// Windows are compared once there are this many iterations since the last change.
const SETTLE: usize = 2 * WINDOW + 1;
/// Iterations without a new least error after which the step is shortened.
const PATIENCE: usize = 50;
/// Growth of the error, since the first, at which it is shortened at once.
const GROWTH: f64 = 1e3;

/// Successive over-relaxation with the factor that is best for the rate observed.
///
/// Near the solution Sinkhorn's error falls by a factor `theta` an iteration. The relaxed iteration is
/// that of a matrix with consistently ordered blocks: with factor `omega` its error falls by `rate`,
/// where `(rate + omega - 1)^2 = omega^2 theta rate`, and by `omega - 1` at best, for
/// `omega = 2 / (1 + sqrt(1 - theta))` (Young 1954; Thibault et al. 2021).
#[derive(Debug)]
pub(super) struct Relaxation {
    enabled: bool,
    omega: f64,
    /// The most that has not been found too much.
    most: f64,
    /// Errors since the factor last changed.
    errors: Vec<f64>,
    first: f64,
    least: f64,
    since_least: usize,
}

impl Relaxation {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            omega: 1.0,
            most: 2.0,
            errors: Vec::new(),
            first: f64::NAN,
            least: f64::INFINITY,
            since_least: 0,
        }
    }

    pub(super) fn omega(&self) -> f64 {
        self.omega
    }

    /// Forgets what was learnt: the problem has changed.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.enabled);
    }

    /// Takes note of an iteration's error. Returns the rate at which it now falls, once that is known.
    pub(super) fn observe(&mut self, error: f64) -> Option<f64> {
        self.errors.push(error);
        if self.first.is_nan() {
            self.first = error;
        }
        if error < self.least {
            (self.least, self.since_least) = (error, 0);
        } else {
            self.since_least += 1;
            let harmful = self.since_least >= PATIENCE || error > GROWTH * self.first;
            if harmful && self.omega > 1.0 {
                self.most = 1.0 + 0.5 * (self.omega - 1.0);
                self.change(self.most);
                return None;
            }
        }
        let now = self.errors.len();
        if now < SETTLE || !now.is_multiple_of(5) {
            return None;
        }
        let fall = |end: usize| (self.errors[end] / self.errors[end - WINDOW]).ln() / WINDOW as f64;
        let (late, early) = (fall(now - 1), fall(now - 1 - WINDOW));
        if !(late < 0.0) || (late - early).abs() > 0.3 * late.abs() {
            return None;
        }
        let rate = late.exp();
        if self.enabled {
            let excess = rate + self.omega - 1.0;
            let theta = (excess / self.omega).powi(2) / rate;
            if rate > self.omega - 1.0 && theta < 1.0 {
                let best = (2.0 / (1.0 + (1.0 - theta).sqrt())).min(self.most);
                if best - 1.0 > 1.02 * (self.omega - 1.0) + 0.01 {
                    self.change(best);
                    return Some((best - 1.0).max(0.0));
                }
            }
        }
        Some(rate)
    }

    fn change(&mut self, omega: f64) {
        self.omega = omega;
        self.errors.clear();
        (self.least, self.since_least) = (f64::INFINITY, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two blocks that each correct the other: Sinkhorn's iteration near its solution, with rates
    /// `theta`, `theta^2`, ..
    fn iterations(theta: f64, enabled: bool) -> usize {
        let rates: Vec<f64> = (1..6).map(|k| theta.powi(k)).collect();
        let (mut x, mut y) = (vec![1.0; 5], vec![-1.0; 5]);
        let mut relaxation = Relaxation::new(enabled);
        for step in 1..100_000 {
            let omega = relaxation.omega();
            let mut error = 0.0;
            for ((x, y), rate) in x.iter_mut().zip(&mut y).zip(&rates) {
                *x += omega * (rate.sqrt() * *y - *x);
                *y += omega * (rate.sqrt() * *x - *y);
                error += x.abs() + y.abs();
            }
            if error < 1e-10 {
                return step;
            }
            relaxation.observe(error);
        }
        usize::MAX
    }

    #[test]
    fn the_steps_saved_are_those_of_the_best_factor() {
        for theta in [0.9, 0.99, 0.999] {
            let (plain, relaxed) = (iterations(theta, false), iterations(theta, true));
            // The best rate is omega - 1; learning it takes three windows.
            let rate = 2.0 / (1.0 + (1.0_f64 - theta).sqrt()) - 1.0;
            let best = (1e-10_f64.ln() / rate.ln()) as usize;
            assert!(relaxed < 2 * best + 4 * WINDOW, "theta {theta}: {relaxed}, best {best}");
            assert!(relaxed < plain, "theta {theta}: {relaxed}, plain {plain}");
        }
    }

    #[test]
    fn a_fast_iteration_is_left_alone() {
        assert!(iterations(0.1, true) <= iterations(0.1, false));
    }

    #[test]
    fn a_factor_that_does_harm_is_taken_back_for_good() {
        let mut relaxation = Relaxation::new(true);
        for k in 0..30 {
            relaxation.observe(0.99_f64.powi(k));
        }
        let high = relaxation.omega();
        assert!(high > 1.5);
        for _ in 0..=PATIENCE {
            relaxation.observe(1.0);
        }
        assert!(relaxation.omega() < high);
        for k in 0..200 {
            relaxation.observe(0.99_f64.powi(k));
        }
        assert!(relaxation.omega() <= 1.0 + 0.5 * (high - 1.0));
    }
}
