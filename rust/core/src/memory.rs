//! Arrays as large as a caller asks for: an error where the memory is not there, not an abort.

use ndarray::{Array, IntoDimension};

use crate::{Error, Real};

/// Elements from which on an allocation is tried first.
const LARGE: usize = 1 << 22;

/// The number of elements of an array of this shape, if its bytes can be counted.
///
/// # Errors
/// [`Error::Memory`]
pub(crate) fn count<T>(shape: &[usize]) -> Result<usize, Error> {
    // Axes of length 0 left out, as ndarray counts.
    let mut lengths = shape.iter().filter(|&&length| length > 0);
    let bytes = lengths.try_fold(size_of::<T>(), |bytes, &length| bytes.checked_mul(length));
    match bytes.map(isize::try_from) {
        Some(Ok(_)) => Ok(shape.iter().product()),
        _ => Err(Error::Memory { shape: shape.to_vec() }),
    }
}

/// Zeros for an array of this shape.
///
/// # Errors
/// [`Error::Memory`]
pub(crate) fn zeros<T: Real>(shape: &[usize]) -> Result<Vec<T>, Error> {
    let n = count::<T>(shape)?;
    if n >= LARGE {
        // `vec!` aborts where memory is short, but has zeros from the system for nothing.
        let refused = |_| Error::Memory { shape: shape.to_vec() };
        Vec::<T>::new().try_reserve_exact(n).map_err(refused)?;
    }
    Ok(vec![T::from_f64(0.0); n])
}

/// An empty vector with room for the elements of an array of this shape.
///
/// # Errors
/// [`Error::Memory`]
pub(crate) fn room<T>(shape: &[usize]) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    let refused = |_| Error::Memory { shape: shape.to_vec() };
    values.try_reserve_exact(count::<T>(shape)?).map_err(refused)?;
    Ok(values)
}

/// The array of this shape, whose elements in C order are `values`.
pub(crate) fn shaped<T, S: IntoDimension>(shape: S, values: Vec<T>) -> Array<T, S::Dim> {
    let shape = shape.into_dimension();
    Array::from_shape_vec(shape, values).expect("as many values as the shape holds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_memory_holds_is_an_error() {
        for shape in [vec![usize::MAX, 2], vec![1 << 40, 1 << 40], vec![1 << 59], vec![1 << 56]] {
            assert_eq!(zeros::<f64>(&shape), Err(Error::Memory { shape: shape.clone() }));
            assert_eq!(room::<u64>(&shape), Err(Error::Memory { shape }));
        }
        assert_eq!(zeros::<f32>(&[2, 3]), Ok(vec![0.0; 6]));
        assert_eq!(zeros::<f32>(&[2, 0]), Ok(vec![]));
    }
}
