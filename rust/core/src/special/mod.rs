//! Logarithms of modified Bessel functions, their ratios and derivatives.
//!
//! Where `I_v(x)` overflows and `K_v(x)` underflows, their logarithms, ratios and normalised forms
//! are ordinary numbers. [`evaluate`] computes them on arrays, with partial derivatives in the
//! order as well as in the argument; the functions of two numbers do one point:
//!
//! ```
//! use pyprobe_core::special::{bessel_ratio, log_iv};
//! assert!((log_iv(1023.0, 500.0) + 363.478_015_720_075_4).abs() < 1e-12);
//! assert!((bessel_ratio(0.0, 1000.0) - 0.999_499_874_874_804_3).abs() < 1e-15);
//! ```
//!
//! # Method
//! For s = hypot(v, x) >= 22 one expansion in 1/s serves all ratios v/x (see `large`); below, the
//! power series for I, and for K Temme's series or the trapezoidal rule with upward recurrence.
//! A chunk of elements is sorted by formula and number of terms, and each group is swept by
//! straight-line vector code, chosen at run time for the processor.
//!
//! # Accuracy
//! With v up to 1e6 and x between 1e-6 and 1e7, errors are a few units of the last place: of
//! max(|log f|, s) for the logarithms of I and K, of the value itself for the ratios, 0F1 and the
//! derivatives in x, and of max(1, |.|) for derivatives in the order and the Matern correlation.
//! The result of an element depends neither on its neighbours nor on the instruction set.
//!
//! # Ends of the domain
//! Negative x, a negative order of I or of the ratio, and b or nu <= 0 give NaN; NaN passes
//! through. At x = 0, x = infinity and infinite order values and derivatives are limits, NaN where
//! order and argument are both infinite.

mod broadcast;
mod debye_table;
mod drive;
mod edge;
pub(crate) mod exp2;
mod gamma;
mod inverse;
mod jet;
mod large;
pub(crate) mod math;
mod small_i;
mod small_k;

use ndarray::{ArrayD, ArrayViewD};

use self::broadcast::Broadcast;
use crate::memory::{shaped, zeros};
use crate::parallel::{for_each_chunk, for_each_chunk_of};
use crate::{Control, Error, Real};

/// A function of two real arguments that this module evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// log `I_v(x)`, the modified Bessel function of the first kind; v >= 0, x >= 0.
    LogIv,
    /// log(e^-x `I_v(x)`); v >= 0, x >= 0.
    LogIve,
    /// log `K_v(x)`, the modified Bessel function of the second kind; any v, x >= 0.
    LogKv,
    /// log(e^x `K_v(x)`); any v, x >= 0.
    LogKve,
    /// r = `I_(v+1)(x)` / `I_v(x)`; v >= 0, x >= 0.
    BesselRatio,
    /// 1 - r, accurate where r is near 1.
    BesselRatioComplement,
    /// log 0F1(; b; z); b > 0, z >= 0. With b = d/2 and z = kappa^2/4 it is the logarithm of the
    /// normaliser of the von Mises-Fisher density, relative to the uniform one.
    LogHyp0f1,
    /// log(2^(1-nu) / Gamma(nu) x^nu `K_nu(x)`), the Matern correlation; nu > 0, x >= 0.
    LogMatern,
}

/// Evaluates partial derivatives of `function`, elementwise with broadcasting, in one pass.
///
/// Each pair (i, j) of `derivatives` asks for the i-th derivative in the first argument (v, b or
/// nu) and the j-th in the second (x or z), where i + j <= 2, and i <= 1 for the ratios; (0, 0) is
/// the value. The results stand in that order.
/// NaN passes through, and marks elements outside of the domain; at 0, as which the smallest
/// subnormal number counts, and at infinity the limits are taken.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not broadcast, [`Error::Domain`] for other pairs,
/// [`Error::Memory`], [`Error::Cancelled`].
pub fn evaluate<T: Real>(
    function: Function,
    derivatives: &[(u8, u8)],
    v: ArrayViewD<'_, T>,
    x: ArrayViewD<'_, T>,
    control: &Control,
) -> Result<Vec<ArrayD<T>>, Error> {
    let mut wanted = [false; 6];
    for pair in derivatives {
        wanted[slot(function, *pair)?] = true;
    }
    let level = drive::level(derivatives);
    let broadcast = Broadcast::new(["v", "x"], [&v, &x])?;
    let n = broadcast.len();
    let mut results = [const { Vec::new() }; 6];
    for (values, _) in results.iter_mut().zip(wanted).filter(|(_, wanted)| *wanted) {
        *values = zeros(broadcast.shape())?;
    }
    let out = results.each_mut().map(Vec::as_mut_slice);
    for_each_chunk_of(out, n, drive::CHUNK, control, |start, out| {
        let count = drive::CHUNK.min(n - start);
        if count <= drive::SHORT {
            evaluate_range::<T, { drive::SHORT }>(function, level, &broadcast, start, count, out);
        } else {
            evaluate_range::<T, { drive::CHUNK }>(function, level, &broadcast, start, count, out);
        }
        Ok(())
    })?;
    let mut arrays = Vec::with_capacity(derivatives.len());
    for (k, pair) in derivatives.iter().enumerate() {
        let values = &mut results[slot(function, *pair)?];
        let again = derivatives[k + 1..].contains(pair);
        let values = if again { values.clone() } else { core::mem::take(values) };
        arrays.push(shaped(broadcast.shape(), values));
    }
    Ok(arrays)
}

/// Evaluates one partial derivative of `function` at one point; see [`evaluate`].
///
/// # Errors
/// [`Error::Domain`] where there is no such derivative.
pub fn evaluate_at(function: Function, derivative: (u8, u8), v: f64, x: f64) -> Result<f64, Error> {
    let (slot, level) = (slot(function, derivative)?, drive::level(&[derivative]));
    let mut value = f64::NAN;
    drive::evaluate_chunk(function, level, &[v], &[x], &mut |_, tile| value = tile[slot][0]);
    Ok(value)
}

/// Where a derivative stands in a [`Tile`](drive::Tile).
fn slot(function: Function, (i, j): (u8, u8)) -> Result<usize, Error> {
    let ratio = matches!(function, Function::BesselRatio | Function::BesselRatioComplement);
    match (i, j) {
        (0, 0) => Ok(0),
        (1, 0) => Ok(1),
        (0, 1) => Ok(2),
        (2, 0) if !ratio => Ok(3),
        (1, 1) => Ok(4),
        (0, 2) => Ok(5),
        _ => Err(Error::Domain {
            name: "derivatives",
            expected: "of total order two at most, and once in the order for ratios",
            got: f64::from(i) + f64::from(j),
        }),
    }
}

/// The x at which `I_(v+1)(x)` / `I_v(x)` is r, elementwise with broadcasting: with v = d/2 - 1 the
/// concentration of the von Mises-Fisher law in d dimensions whose mean resultant length is r.
///
/// `complement` is 1 - r, and counts where r > 1/2: pass it if it is known to more digits than r can
/// hold. Banerjee's start, then Halley's method kept in the bracket of Hornik and Grün.
/// r = 0 gives 0, a complement of 0 gives infinity, and arguments outside of `[0, 1]`, or v not in
/// `[0, inf)`, NaN.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not broadcast, [`Error::Memory`], [`Error::Cancelled`].
pub fn invert_ratio<T: Real>(
    v: ArrayViewD<'_, T>,
    r: ArrayViewD<'_, T>,
    complement: Option<ArrayViewD<'_, T>>,
    control: &Control,
) -> Result<ArrayD<T>, Error> {
    let given = complement.is_some();
    let complement = complement.unwrap_or_else(|| r.view());
    let broadcast = Broadcast::new(["v", "r", "complement"], [&v, &r, &complement])?;
    let mut result = zeros::<T>(broadcast.shape())?;
    for_each_chunk(&mut result, drive::CHUNK, control, |start, out| {
        let mut columns = [const { Vec::new() }; 4];
        for column in &mut columns {
            column.resize(out.len(), 0.0);
        }
        let [v, r, complement, x] = &mut columns;
        broadcast.read(start, [v, r, complement]);
        if !given {
            complement.iter_mut().zip(&*r).for_each(|(c, r)| *c = 1.0 - r);
        }
        inverse::solve(v, r, complement, x);
        out.iter_mut().zip(&*x).for_each(|(out, &x)| *out = T::from_f64(x));
        Ok(())
    })?;
    Ok(shaped(broadcast.shape(), result))
}

/// The x at which `I_(v+1)(x)` / `I_v(x)` is r, given r and its complement 1 - r; see
/// [`invert_ratio`].
///
/// ```
/// use pyprobe_core::special::{bessel_ratio, bessel_ratio_inverse};
/// let r = bessel_ratio(511.0, 300.0);
/// assert!((bessel_ratio_inverse(511.0, r, 1.0 - r) / 300.0 - 1.0).abs() < 1e-14);
/// ```
pub fn bessel_ratio_inverse(v: f64, r: f64, complement: f64) -> f64 {
    let mut x = [f64::NAN];
    inverse::solve(&[v], &[r], &[complement], &mut x);
    x[0]
}

/// One function of two numbers.
macro_rules! scalar {
    ($($(#[$doc:meta])* $name:ident, $function:ident($a:ident, $b:ident);)*) => {$(
        $(#[$doc])*
        pub fn $name($a: f64, $b: f64) -> f64 {
            value(Function::$function, $a, $b)
        }
    )*};
}

scalar! {
    /// log `I_v(x)`.
    ///
    /// ```
    /// // I_(1/2)(x) = sqrt(2 / (pi x)) sinh(x)
    /// let x = 3.0f64;
    /// let exact = (2.0 / (std::f64::consts::PI * x)).sqrt() * x.sinh();
    /// assert!((pyprobe_core::special::log_iv(0.5, x) - exact.ln()).abs() < 1e-15);
    /// ```
    log_iv, LogIv(v, x);
    /// log(e^-x `I_v(x)`).
    ///
    /// ```
    /// // e^-x I_v(x) tends to 1 / sqrt(2 pi x).
    /// let exact = -(2.0 * std::f64::consts::PI * 1e12f64).ln() / 2.0;
    /// assert!((pyprobe_core::special::log_ive(2.0, 1e12) - exact).abs() < 1e-11);
    /// ```
    log_ive, LogIve(v, x);
    /// log `K_v(x)`, even in v.
    ///
    /// ```
    /// // K_(1/2)(x) = sqrt(pi / (2 x)) e^-x
    /// let exact = (std::f64::consts::PI / 2e4).ln() / 2.0 - 1e4;
    /// assert!((pyprobe_core::special::log_kv(-0.5, 1e4) / exact - 1.0).abs() < 1e-15);
    /// ```
    log_kv, LogKv(v, x);
    /// log(e^x `K_v(x)`), even in v.
    ///
    /// ```
    /// let exact = (std::f64::consts::PI / 2e4).ln() / 2.0;
    /// assert!((pyprobe_core::special::log_kve(0.5, 1e4) / exact - 1.0).abs() < 1e-15);
    /// ```
    log_kve, LogKve(v, x);
    /// r = `I_(v+1)(x)` / `I_v(x)`.
    ///
    /// ```
    /// // In three dimensions the mean resultant length is coth(x) - 1/x.
    /// let exact = 1.0 / 30f64.tanh() - 1.0 / 30.0;
    /// assert!((pyprobe_core::special::bessel_ratio(0.5, 30.0) / exact - 1.0).abs() < 1e-15);
    /// ```
    bessel_ratio, BesselRatio(v, x);
    /// 1 - `I_(v+1)(x)` / `I_v(x)`, to full relative accuracy.
    ///
    /// ```
    /// let complement = pyprobe_core::special::bessel_ratio_complement(0.5, 1e20);
    /// assert!((complement / 1e-20 - 1.0).abs() < 1e-15);
    /// ```
    bessel_ratio_complement, BesselRatioComplement(v, x);
    /// log 0F1(; b; z).
    ///
    /// ```
    /// // 0F1(; 1/2; z) = cosh(2 sqrt(z))
    /// let exact = 2.4f64.cosh().ln();
    /// assert!((pyprobe_core::special::log_hyp0f1(0.5, 1.44) - exact).abs() < 1e-15);
    /// ```
    log_hyp0f1, LogHyp0f1(b, z);
    /// The log of the Matern correlation 2^(1-nu) / Gamma(nu) x^nu `K_nu(x)`.
    ///
    /// ```
    /// // nu = 3/2: (1 + x) e^-x
    /// let exact = 2f64.ln() - 1.0;
    /// assert!((pyprobe_core::special::log_matern(1.5, 1.0) - exact).abs() < 1e-15);
    /// ```
    log_matern, LogMatern(nu, x);
}

/// The tables of coefficients behind the kernels, by name, for an implementation on other hardware;
/// what each one holds is said where it stands, in `debye_table` and `gamma`.
pub const fn tables() -> [(&'static str, &'static [f64]); 4] {
    [
        ("debye", &debye_table::D),
        ("gamma_1", &gamma::GAMMA_1),
        ("gamma_2", &gamma::GAMMA_2),
        ("stirling", &gamma::STIRLING),
    ]
}

fn value(function: Function, v: f64, x: f64) -> f64 {
    let mut value = f64::NAN;
    drive::evaluate_chunk(function, 0, &[v], &[x], &mut |_, tile| value = tile[0][0]);
    value
}

/// Elements `start .. start + count` of the broadcast arrays; `N` bounds `count`.
fn evaluate_range<T: Real, const N: usize>(
    function: Function,
    level: usize,
    broadcast: &Broadcast<'_, T, 2>,
    start: usize,
    count: usize,
    mut out: [&mut [T]; 6],
) {
    let (mut v, mut x) = ([0.0; N], [0.0; N]);
    let (v, x) = (&mut v[..count], &mut x[..count]);
    broadcast.read(start, [v, x]);
    drive::evaluate_chunk(function, level, v, x, &mut |places, tile| {
        for (out, row) in out.iter_mut().zip(tile) {
            if !out.is_empty() {
                for (&place, &value) in places.iter().zip(row) {
                    out[place as usize] = T::from_f64(value);
                }
            }
        }
    });
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // Exact values are expected.
mod tests {
    use core::f64::consts::PI;

    use ndarray::{Array1, ArrayView, IxDyn, array};

    use super::*;

    const FUNCTIONS: [Function; 8] = [
        Function::LogIv,
        Function::LogIve,
        Function::LogKv,
        Function::LogKve,
        Function::BesselRatio,
        Function::BesselRatioComplement,
        Function::LogHyp0f1,
        Function::LogMatern,
    ];

    fn derivatives(function: Function) -> Vec<(u8, u8)> {
        let ratio = matches!(function, Function::BesselRatio | Function::BesselRatioComplement);
        let all = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)];
        all.into_iter().filter(|&(i, _)| !(ratio && i == 2)).collect()
    }

    /// All derivatives at one point.
    fn at(function: Function, v: f64, x: f64) -> Vec<f64> {
        let (v, x) = (array![v].into_dyn(), array![x].into_dyn());
        let pairs = derivatives(function);
        let results = evaluate(function, &pairs, v.view(), x.view(), &Control::new()).unwrap();
        results.iter().map(|array| array[0]).collect()
    }

    /// Points all over the quadrant, the ends of the domain among them.
    fn points(n: usize) -> (Vec<f64>, Vec<f64>) {
        let golden = |i: usize, step: f64| (i as f64 * step).fract();
        let v = (0..n).map(|i| 10f64.powf(-3.0 + 9.0 * golden(i, 0.618_033_988_7)));
        let x = (0..n).map(|i| 10f64.powf(-6.0 + 13.0 * golden(i, 0.414_213_562_3)));
        let special = |i: usize, value: f64| match i % 50 {
            7 => 0.0,
            13 => f64::INFINITY,
            29 => f64::NAN,
            31 => -1.5,
            _ => value,
        };
        let v = v.enumerate().map(|(i, v)| special(i, v)).collect();
        let x = x.enumerate().map(|(i, x)| special(i / 7, x)).collect();
        (v, x)
    }

    #[test]
    fn an_element_has_the_same_bits_alone_and_in_any_company() {
        let n = 3 * drive::CHUNK + 77;
        let (v, x) = points(n);
        for function in FUNCTIONS {
            let pairs = derivatives(function);
            let shape = IxDyn(&[n]);
            let view = |a| ArrayView::from_shape(shape.clone(), a).unwrap();
            let whole = evaluate(function, &pairs, view(&v), view(&x), &Control::new()).unwrap();
            let alone = Control::sequential();
            let sequential = evaluate(function, &pairs, view(&v), view(&x), &alone).unwrap();
            for (array, same) in whole.iter().zip(&sequential) {
                assert!(array.iter().zip(same).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
            for i in (0..n).step_by(3) {
                for (array, single) in whole.iter().zip(at(function, v[i], x[i])) {
                    let same = array[i].to_bits() == single.to_bits();
                    let both_nan = array[i].is_nan() && single.is_nan();
                    assert!(same || both_nan, "{function:?} at ({}, {})", v[i], x[i]);
                }
            }
        }
    }

    #[test]
    fn single_precision_is_double_precision_rounded() {
        let v: Array1<f32> = Array1::linspace(0.0, 40.0, 100);
        let x: Array1<f32> = Array1::linspace(0.5, 60.0, 100);
        let pairs = [(0, 0), (0, 1)];
        for function in FUNCTIONS {
            let (v, x) = (v.view().into_dyn(), x.view().into_dyn());
            let got = evaluate(function, &pairs, v.clone(), x.clone(), &Control::new()).unwrap();
            for (i, (&v, &x)) in v.iter().zip(x).enumerate() {
                let wide = at(function, f64::from(v), f64::from(x));
                let (value, slope) = (wide[0] as f32, wide[2] as f32);
                assert!(got[0][i] == value || (got[0][i].is_nan() && value.is_nan()));
                assert!(got[1][i] == slope || (got[1][i].is_nan() && slope.is_nan()));
            }
        }
    }

    #[test]
    fn values_at_zero_and_infinity_are_limits() {
        let inf = f64::INFINITY;
        let limits = [
            (Function::LogIv, 0.0, 0.0, 0.0),
            (Function::LogIv, 2.0, 0.0, -inf),
            (Function::LogIv, 2.0, inf, inf),
            (Function::LogIv, inf, 2.0, -inf),
            (Function::LogIve, 2.0, inf, -inf),
            (Function::LogKv, 0.0, 0.0, inf),
            (Function::LogKv, -2.0, inf, -inf),
            (Function::LogKv, inf, 2.0, inf),
            (Function::LogKve, 2.0, inf, -inf),
            (Function::BesselRatio, 2.0, 0.0, 0.0),
            (Function::BesselRatio, 2.0, inf, 1.0),
            (Function::BesselRatio, inf, 2.0, 0.0),
            (Function::BesselRatioComplement, 2.0, 0.0, 1.0),
            (Function::BesselRatioComplement, 2.0, inf, 0.0),
            (Function::LogHyp0f1, 2.0, 0.0, 0.0),
            (Function::LogHyp0f1, 2.0, inf, inf),
            (Function::LogMatern, 0.3, 0.0, 0.0),
            (Function::LogMatern, 0.3, inf, -inf),
        ];
        for (function, v, x, limit) in limits {
            assert_eq!(at(function, v, x)[0], limit, "{function:?} at ({v}, {x})");
        }
        for function in FUNCTIONS {
            for (v, x) in [(1.0, -1.0), (f64::NAN, 1.0), (1.0, f64::NAN), (inf, inf)] {
                assert!(at(function, v, x).iter().all(|y| y.is_nan()), "{function:?} ({v}, {x})");
            }
            let even = matches!(function, Function::LogKv | Function::LogKve);
            assert_eq!(at(function, -0.5, 1.0)[0].is_nan(), !even, "{function:?}");
        }
        assert!(log_hyp0f1(0.0, 1.0).is_nan() && log_matern(0.0, 1.0).is_nan());
    }

    #[test]
    fn derivatives_at_zero_continue_those_beside_it() {
        let beside = [
            (Function::LogIv, 0.0),
            (Function::BesselRatio, 0.7),
            (Function::BesselRatioComplement, 3.0),
            (Function::LogHyp0f1, 0.7),
            (Function::LogHyp0f1, 1e5),
            (Function::LogMatern, 2.5),
        ];
        for (function, v) in beside {
            let (limit, near) = (at(function, v, 0.0), at(function, v, 1e-12));
            for (limit, near) in limit.into_iter().zip(near).filter(|(limit, _)| limit.is_finite())
            {
                assert!((limit - near).abs() <= 1e-9 * near.abs().max(1e-2), "{function:?} {v}");
            }
        }
    }

    #[test]
    fn negative_orders_of_k_mirror_the_positive_ones() {
        for (v, x) in [(0.3, 0.1), (2.7, 5.0), (40.0, 3.0)] {
            for function in [Function::LogKv, Function::LogKve] {
                let mut mirrored = at(function, -v, x);
                mirrored[1] *= -1.0;
                mirrored[4] *= -1.0;
                assert_eq!(mirrored, at(function, v, x));
            }
        }
    }

    #[test]
    fn nothing_overflows_at_the_ends_of_the_range() {
        let close = |got: f64, wanted: f64| {
            assert!((got - wanted).abs() <= 1e-15 * wanted.abs(), "{got} for {wanted}");
        };
        // sqrt(2 / (pi x)) sinh(x) and sqrt(pi / (2 x)) e^-x
        close(log_iv(0.5, 1e300), 1e300);
        close(log_ive(0.5, 1e300), -0.5 * (2.0 * PI).ln() - 150.0 * 10f64.ln());
        close(log_kve(0.5, 1e300), 0.5 * (PI / 2.0).ln() - 150.0 * 10f64.ln());
        // Gamma(v) (x/2)^-v / 2 for small x
        let (v, x) = (1e200, 1e-200f64);
        close(log_kv(v, x), v * (v.ln() - 1.0 + std::f64::consts::LN_2 - x.ln()));
        close(
            log_kv(30.0, 1e-310),
            30.0 * (2e155f64.ln() - 1e-155f64.ln()) + 71.257_038_967_168_01
                - std::f64::consts::LN_2,
        );
        close(log_kv(0.0, 1e-310), (2e155f64.ln() - 1e-155f64.ln() - 0.577_215_664_901_532_9).ln());
        close(bessel_ratio(1e300, 1e300), 2f64.sqrt() - 1.0);
        close(bessel_ratio(3.0, 1e-300), 1.25e-301);
        close(bessel_ratio_complement(0.5, 1e300), 1e-300);
        close(log_hyp0f1(1e300, 1e300), 1.0);
        close(log_hyp0f1(1e300, 1e200), 1e-100);
        close(log_hyp0f1(1e-300, 1e-300), 2f64.ln());
        // The smallest subnormal number counts as 0.
        let tiny = f64::from_bits(1);
        assert_eq!((log_iv(0.0, tiny), log_kv(0.0, tiny)), (0.0, f64::INFINITY));
        assert_eq!((log_matern(3.0, tiny), log_hyp0f1(3.0, tiny)), (0.0, 0.0));
        close(log_matern(0.5, 1e300), -1e300);
        close(log_matern(1e300, 1e150), -0.25);
    }

    #[test]
    fn no_seam_between_formulas_shows() {
        let seams = large::BINS.iter().flat_map(|&s| {
            (0..=20).map(move |k| {
                let (sin, cos) = (f64::from(k) * PI / 40.0).sin_cos();
                (s * sin, s * cos.max(1e-3))
            })
        });
        for (v, x) in seams {
            for function in FUNCTIONS {
                let reduced = matches!(function, Function::LogHyp0f1 | Function::LogMatern);
                let v = if reduced { v + 1.0 } else { v };
                let x = if function == Function::LogHyp0f1 { x * x / 4.0 } else { x };
                let (e, one) = (1e-14, 1.0f64);
                let inside = at(function, v * (one - e), x * (one - e));
                let outside = at(function, v * (one + e), x * (one + e));
                let slope = (v * inside[1]).abs() + (x * inside[2]).abs();
                let size = inside[0].abs().max(if function == Function::LogHyp0f1 {
                    0.0
                } else {
                    v.hypot(x)
                });
                let ratio =
                    matches!(function, Function::BesselRatio | Function::BesselRatioComplement);
                let size = if ratio { inside[0] } else { size };
                let jump = (outside[0] - inside[0]).abs() - 2.0 * e * slope;
                assert!(jump <= 2e-15 * size, "{function:?} at ({v}, {x}): {jump:e}");
            }
        }
    }

    #[test]
    fn the_inverse_returns_the_argument_of_the_ratio() {
        for dim in [2.0, 3.0, 5.0, 64.0, 1024.0, 32768.0, 131072.0] {
            let v = dim / 2.0 - 1.0;
            let kappa: Array1<f64> =
                (0..400).map(|i| 10f64.powf(-6.0 + 0.04 * f64::from(i))).collect();
            let r = kappa.mapv(|x| bessel_ratio(v, x)).into_dyn();
            let complement = kappa.mapv(|x| bessel_ratio_complement(v, x)).into_dyn();
            let v = ndarray::arr0(v).into_dyn();
            let control = Control::new();
            let found =
                invert_ratio(v.view(), r.view(), Some(complement.view()), &control).unwrap();
            for (found, kappa) in found.iter().zip(&kappa) {
                assert!((found / kappa - 1.0).abs() < 1e-13, "d = {dim}: {found} for {kappa}");
            }
        }
    }

    #[test]
    fn the_inverse_in_three_dimensions_solves_the_langevin_equation() {
        // coth(x) - 1/x, whose complement 1/x - 2/(e^2x - 1) does not cancel at large x.
        for x in [3.0f64, 20.0, 1e3, 1e9] {
            let complement = 1.0 / x - 2.0 / (2.0 * x).exp_m1();
            let v = array![0.5].into_dyn();
            let (r, c) = (array![1.0 - complement].into_dyn(), array![complement].into_dyn());
            let control = Control::new();
            let found = invert_ratio(v.view(), r.view(), Some(c.view()), &control).unwrap();
            assert!((found[0] / x - 1.0).abs() < 1e-14, "{} for {x}", found[0]);
        }
    }

    #[test]
    fn the_complement_does_not_count_up_to_one_half() {
        for r in [0.0, 1e-300, 1e-3, 0.25, 0.5] {
            let expected = bessel_ratio_inverse(1.5, r, 1.0 - r);
            for complement in [0.0, 0.3, 1.0, -1.0, 2.0, f64::NAN] {
                assert_eq!(bessel_ratio_inverse(1.5, r, complement), expected, "{r} {complement}");
            }
        }
        let above = 0.5 + f64::EPSILON;
        assert_eq!(bessel_ratio_inverse(1.5, above, 0.0), f64::INFINITY);
        assert!(bessel_ratio_inverse(1.5, above, f64::NAN).is_nan());
    }

    #[test]
    fn the_inverse_has_ends_and_an_outside() {
        let r = array![0.0, 1.0, -0.1, 1.1, f64::NAN].into_dyn();
        let v = array![1.0].into_dyn();
        let found = invert_ratio(v.view(), r.view(), None, &Control::new()).unwrap();
        assert_eq!((found[0], found[1]), (0.0, f64::INFINITY));
        assert!(found.iter().skip(2).all(|x| x.is_nan()));
        let v = array![-1.0, f64::INFINITY, f64::NAN].into_dyn();
        let r = array![0.5].into_dyn();
        let found = invert_ratio(v.view(), r.view(), None, &Control::new()).unwrap();
        assert!(found.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn bad_requests_are_refused_by_name() {
        let (v, x) = (array![1.0, 2.0].into_dyn(), array![1.0, 2.0, 3.0].into_dyn());
        let control = Control::new();
        let error = evaluate(Function::LogIv, &[(0, 0)], v.view(), x.view(), &control);
        assert!(matches!(error, Err(Error::Shape { name: "x", .. })));
        for (function, pair) in [(Function::LogIv, (1, 2)), (Function::BesselRatio, (2, 0))] {
            let error = evaluate(function, &[pair], v.view(), v.view(), &control);
            assert!(matches!(error, Err(Error::Domain { name: "derivatives", .. })));
        }
        control.cancel();
        let error = evaluate(Function::LogIv, &[(0, 0)], v.view(), v.view(), &control);
        assert_eq!(error, Err(Error::Cancelled));
    }

    #[test]
    fn empty_arrays_and_repeated_pairs_are_served() {
        let (empty, one) =
            (ndarray::Array2::<f64>::zeros((0, 3)).into_dyn(), array![1.0].into_dyn());
        let control = Control::new();
        let found = evaluate(Function::LogIv, &[(0, 0)], empty.view(), one.view(), &control);
        assert_eq!(found.unwrap()[0].shape(), [0, 3]);
        let pairs = [(0, 1), (0, 0), (0, 1)];
        let found = evaluate(Function::LogIv, &pairs, one.view(), one.view(), &control).unwrap();
        assert_eq!(found[0], found[2]);
        assert_eq!(found[1][0], log_iv(1.0, 1.0));
    }
}
