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
mod gamma;
mod inverse;
mod jet;
mod large;
pub(crate) mod math;
mod small_i;
mod small_k;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use self::broadcast::Broadcast;
use crate::parallel::{for_each_chunk, for_each_chunk_of};
use crate::{Control, Error};

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

/// An element type: `f32` or `f64`. All arithmetic is done in `f64`.
pub trait Real: Copy + Send + Sync + Default + sealed::Sealed + 'static {
    /// Widens to `f64`, exactly.
    fn to_f64(self) -> f64;
    /// Rounds from `f64`.
    fn from_f64(value: f64) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Real for f64 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
}

impl Real for f32 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

/// Evaluates partial derivatives of `function`, elementwise with broadcasting, in one pass.
///
/// Each pair (i, j) of `derivatives` asks for the i-th derivative in the first argument (v, b or
/// nu) and the j-th in the second (x or z), where i + j <= 2, and i <= 1 for the ratios; (0, 0) is
/// the value. The results stand in that order.
/// NaN passes through, and marks elements outside of the domain; at 0 and infinity the limits are
/// taken.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not broadcast, [`Error::Domain`] for other pairs, and
/// [`Error::Cancelled`].
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
    let mut results = wanted.map(|w| vec![T::default(); if w { n } else { 0 }]);
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
/// `complement` is 1 - r, which decides where r is near 1: pass it if it is known to more digits
/// than r can hold. Banerjee's start, then Halley's method kept in the bracket of Hornik and Grün.
/// r = 0 gives 0, a complement of 0 gives infinity, and arguments outside of `[0, 1]`, or v not in
/// `[0, inf)`, NaN.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not broadcast, and [`Error::Cancelled`].
pub fn bessel_ratio_inverse<T: Real>(
    v: ArrayViewD<'_, T>,
    r: ArrayViewD<'_, T>,
    complement: Option<ArrayViewD<'_, T>>,
    control: &Control,
) -> Result<ArrayD<T>, Error> {
    let given = complement.is_some();
    let complement = complement.unwrap_or_else(|| r.view());
    let broadcast = Broadcast::new(["v", "r", "complement"], [&v, &r, &complement])?;
    let n = broadcast.len();
    let mut result = vec![T::default(); n];
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

fn shaped<T>(shape: &[usize], values: Vec<T>) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(shape), values).expect("as many values as the shape holds")
}
