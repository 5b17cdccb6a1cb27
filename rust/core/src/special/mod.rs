//! Logarithms of modified Bessel functions, their ratios and derivatives.

mod broadcast;
mod debye_table;
mod drive;
mod edge;
mod gamma;
mod jet;
mod large;
pub(crate) mod math;
mod small_i;
mod small_k;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use self::broadcast::Broadcast;
use crate::parallel::for_each_chunk_of;
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
/// nu) and the j-th in the second (x or z); (0, 0) is the value. The results stand in that order.
/// NaN passes through, and marks elements outside of the domain; at 0 and infinity the limits are
/// taken.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not broadcast, [`Error::Domain`] if i + j > 2, and
/// [`Error::Cancelled`].
pub fn evaluate<T: Real>(
    function: Function,
    derivatives: &[(u8, u8)],
    v: ArrayViewD<'_, T>,
    x: ArrayViewD<'_, T>,
    control: &Control,
) -> Result<Vec<ArrayD<T>>, Error> {
    let slot = |&(i, j): &(u8, u8)| match (i, j) {
        (0, 0) => Ok(0),
        (1, 0) => Ok(1),
        (0, 1) => Ok(2),
        (2, 0) => Ok(3),
        (1, 1) => Ok(4),
        (0, 2) => Ok(5),
        _ => Err(Error::Domain {
            name: "derivatives",
            expected: "of total order two at most",
            got: f64::from(i) + f64::from(j),
        }),
    };
    let mut wanted = [false; 6];
    for pair in derivatives {
        wanted[slot(pair)?] = true;
    }
    let level = drive::level(derivatives);
    let broadcast = Broadcast::new(["v", "x"], &v, &x)?;
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
        let values = &mut results[slot(pair)?];
        let again = derivatives[k + 1..].contains(pair);
        let values = if again { values.clone() } else { core::mem::take(values) };
        arrays.push(shaped(broadcast.shape(), values));
    }
    Ok(arrays)
}

/// Elements `start .. start + count` of the broadcast arrays; `N` bounds `count`.
fn evaluate_range<T: Real, const N: usize>(
    function: Function,
    level: usize,
    broadcast: &Broadcast<'_, T>,
    start: usize,
    count: usize,
    mut out: [&mut [T]; 6],
) {
    let (mut v, mut x) = ([0.0; N], [0.0; N]);
    let (v, x) = (&mut v[..count], &mut x[..count]);
    broadcast.read(start, v, x);
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
