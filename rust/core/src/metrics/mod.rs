//! Distances between samples that are sums of a kernel over all pairs of points.
//!
//! The energy distance and the squared maximum mean discrepancy both are
//! `2 xy - xx - yy`, up to sign, of the three [`PairSums`]. Cost O((n + m)^2 d) time, and memory for
//! the points alone: no matrix of pairs is ever held.
//!
//! ```
//! use pyprobe_core::Control;
//! use pyprobe_core::metrics::{Kernel, Sample, pair_sums};
//! use pyprobe_core::ndarray::array;
//!
//! let (x, y) = (array![[0.0, 0.0], [0.0, 2.0]], array![[3.0, 0.0], [3.0, 2.0]]);
//! let weights = array![0.5, 0.5];
//! let [x, y] = [&x, &y].map(|x| Sample { points: x.view(), weights: weights.view() });
//! let sums = pair_sums(x, y, Kernel::Distance, &Control::new())?;
//!
//! // The energy distance of the two samples themselves, and the unbiased estimate for their laws.
//! let v_statistic = 2.0 * sums.xy - sums.xx - sums.yy;
//! let u_statistic = 2.0 * sums.xy - (sums.xx + sums.yy) / 0.5; // sum over i != j of the weights
//! assert!((v_statistic - (3.0 + 13.0_f64.sqrt() - 2.0)).abs() < 1e-14);
//! assert!(u_statistic < v_statistic);
//! # Ok::<(), pyprobe_core::Error>(())
//! ```

mod pairs;

pub use pairs::{Gradient, Kernel, PairSums, Sample, gradient, pair_sums};
