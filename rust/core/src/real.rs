//! The two floating-point types of the kernels.

use std::borrow::Cow;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` or `f64`: what arrays may hold. Kernels widen every element to `f64` and round results.
pub trait Real: sealed::Sealed + Copy + PartialEq + Into<f64> + Send + Sync + 'static {
    /// How far from 1 the norm of a unit vector in this type may lie.
    const UNIT_TOLERANCE: f64;

    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;

    /// The values in double precision: themselves where they are.
    fn to_doubles(values: &[Self]) -> Cow<'_, [f64]>;

    /// The same slice, where the type is double precision.
    fn as_doubles(values: &mut [Self]) -> Option<&mut [f64]> {
        let _ = values;
        None
    }
}

impl Real for f64 {
    const UNIT_TOLERANCE: f64 = 1e-6;

    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }

    fn to_doubles(values: &[Self]) -> Cow<'_, [f64]> {
        Cow::Borrowed(values)
    }

    #[inline(always)]
    fn as_doubles(values: &mut [Self]) -> Option<&mut [f64]> {
        Some(values)
    }
}

impl Real for f32 {
    // A row normalised in f32 is off by about 6e-8; by 1e-5 where the sum of squares of 10^5
    // elements was itself run in f32, in order.
    const UNIT_TOLERANCE: f64 = 1e-4;

    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as Self
    }

    fn to_doubles(values: &[Self]) -> Cow<'_, [f64]> {
        values.iter().map(|&value| f64::from(value)).collect()
    }
}
