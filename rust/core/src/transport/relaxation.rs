//! How far to step beyond Sinkhorn's own step, learnt from how the error falls.

/// Iterations of a window over which the error's fall is measured.
const WINDOW: usize = 10;
/// Windows are compared once there are this many iterations since the last change.
const SETTLE: usize = 2 * WINDOW + 1;
/// Iterations without a new least error after which the step is shortened.
const PATIENCE: usize = 50;

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
        if error < self.least {
            (self.least, self.since_least) = (error, 0);
        } else {
            self.since_least += 1;
            if self.since_least >= PATIENCE && self.omega > 1.0 {
                self.most = 1.0 + 0.5 * (self.omega - 1.0);
                self.change(self.most);
                return None;
            }
        }
        let now = self.errors.len();
        if now < SETTLE || now % 5 != 0 {
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
