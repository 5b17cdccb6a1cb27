//! Broadcasting of several arrays, chunk by chunk and without forming the broadcast arrays.

use core::array::from_fn;
use std::borrow::Cow;

use ndarray::ArrayViewD;

use crate::{Error, Real, memory};

/// One axis of the result: its length, and the step of each operand along it.
#[derive(Clone, Copy)]
struct Axis<const N: usize> {
    length: usize,
    steps: [usize; N],
}

/// Operands in C order, read at any range of the elements of the broadcast result.
pub(crate) struct Broadcast<'a, T: Clone, const N: usize> {
    operands: [Cow<'a, [T]>; N],
    /// Axes of the result after merging those that all operands walk alike; the last one first.
    axes: Vec<Axis<N>>,
    shape: Vec<usize>,
}

impl<'a, T: Real, const N: usize> Broadcast<'a, T, N> {
    /// Checks that the shapes go together. `names` are those of the arguments.
    pub(crate) fn new(
        names: [&'static str; N],
        operands: [&'a ArrayViewD<'a, T>; N],
    ) -> Result<Self, Error> {
        let dims = operands.iter().map(|a| a.ndim()).max().unwrap_or(0);
        // Missing axes on the left have length 1.
        let length = |i: usize, axis: usize| {
            let shape = operands[i].shape();
            (axis + shape.len()).checked_sub(dims).map_or(1, |k| shape[k])
        };
        let mut shape = vec![1; dims];
        for (i, operand) in operands.iter().enumerate() {
            for (axis, total) in shape.iter_mut().enumerate() {
                match (*total, length(i, axis)) {
                    (m, n) if m == n || n == 1 => {}
                    (1, n) => *total = n,
                    _ => {
                        return Err(Error::Shape {
                            name: names[i],
                            expected: format!(
                                "that broadcasts against {:?} of '{}'",
                                operands[0].shape(),
                                names[0]
                            ),
                            got: operand.shape().to_vec(),
                        });
                    }
                }
            }
        }
        memory::count::<f64>(&shape)?;
        let mut axes: Vec<Axis<N>> = Vec::new();
        let mut strides = [1; N];
        for axis in (0..dims).rev() {
            let lengths: [usize; N] = from_fn(|i| length(i, axis));
            let steps = from_fn(|i| if lengths[i] == 1 { 0 } else { strides[i] });
            let next = Axis { length: shape[axis], steps };
            strides = from_fn(|i| strides[i] * lengths[i]);
            match axes.last_mut() {
                _ if next.length == 1 => {}
                Some(last) if (0..N).all(|i| next.steps[i] == last.steps[i] * last.length) => {
                    last.length *= next.length;
                }
                _ => axes.push(next),
            }
        }
        Ok(Self { operands: operands.map(in_order), axes, shape })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Copies the operands at elements `start ..` of the result into `out`, as f64.
    pub(crate) fn read(&self, start: usize, mut out: [&mut [f64]; N]) {
        let Some((row, outer)) = self.axes.split_first() else {
            for (out, operand) in out.iter_mut().zip(&self.operands) {
                out.fill(operand[0].into());
            }
            return;
        };
        let count = out[0].len();
        let (mut done, mut column, mut index) = (0, start % row.length, start / row.length);
        while done < count {
            let run = (row.length - column).min(count - done);
            let mut offsets = row.steps.map(|step| step * column);
            let mut rest = index;
            for axis in outer {
                let i = rest % axis.length;
                rest /= axis.length;
                offsets = from_fn(|k| offsets[k] + axis.steps[k] * i);
            }
            for (k, out) in out.iter_mut().enumerate() {
                let (source, out) = (&self.operands[k][offsets[k]..], &mut out[done..done + run]);
                if row.steps[k] == 0 {
                    out.fill(source[0].into());
                } else {
                    out.iter_mut().zip(source).for_each(|(o, x)| *o = (*x).into());
                }
            }
            done += run;
            column = 0;
            index += 1;
        }
    }
}

/// The elements in C order; copied only where they do not lie so already.
fn in_order<'a, T: Real>(array: &'a ArrayViewD<'a, T>) -> Cow<'a, [T]> {
    array.as_slice().map_or_else(|| Cow::Owned(array.iter().copied().collect()), Cow::Borrowed)
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // Exact values are expected.
mod tests {
    use ndarray::{ArrayD, IxDyn, ShapeBuilder, Slice};

    use super::*;

    fn ramp(shape: &[usize]) -> ArrayD<f64> {
        let n = shape.iter().product::<usize>() as u32;
        ArrayD::from_shape_vec(IxDyn(shape), (0..n).map(f64::from).collect()).unwrap()
    }

    #[test]
    fn every_range_of_the_result_is_what_ndarray_broadcasts() {
        let shapes: [[&[usize]; 3]; 9] = [
            [&[], &[], &[]],
            [&[], &[5], &[5]],
            [&[4, 5], &[5], &[4, 5]],
            [&[4, 1], &[5], &[4, 5]],
            [&[4, 1], &[1, 5], &[4, 5]],
            [&[2, 3, 4], &[2, 1, 4], &[2, 3, 4]],
            [&[2, 1, 1, 4], &[3, 2, 1], &[2, 3, 2, 4]],
            [&[1, 7, 1], &[2, 1, 3], &[2, 7, 3]],
            [&[6, 1], &[6, 1], &[6, 1]],
        ];
        for [a_shape, b_shape, shape] in shapes {
            let (a, b) = (ramp(a_shape), ramp(b_shape));
            let (a_view, b_view) = (a.view(), b.view());
            let broadcast = Broadcast::new(["a", "b"], [&a_view, &b_view]).unwrap();
            assert_eq!(broadcast.shape(), shape);
            let wanted = |array: &ArrayD<f64>| -> Vec<f64> {
                array.broadcast(shape).unwrap().iter().copied().collect()
            };
            let n = broadcast.len();
            for start in 0..n {
                for end in start..=n {
                    let (mut p, mut q) = (vec![-1.0; end - start], vec![-1.0; end - start]);
                    broadcast.read(start, [&mut p, &mut q]);
                    assert_eq!(p, wanted(&a)[start..end]);
                    assert_eq!(q, wanted(&b)[start..end]);
                }
            }
        }
    }

    #[test]
    fn strided_and_fortran_ordered_operands_are_read_in_c_order() {
        let a = ramp(&[4, 6]);
        // Not `s![..;2, ..;-3]`: the macro allows itself unsafe code, which this crate forbids.
        let steps = [2, -3];
        let a_view = a.slice_each_axis(|axis| Slice::new(0, None, steps[axis.axis.index()]));
        let b = ArrayD::from_shape_vec(IxDyn(&[2, 2]).f(), vec![0.0, 1.0, 2.0, 3.0]).unwrap();
        let b_view = b.view();
        let broadcast = Broadcast::new(["a", "b"], [&a_view, &b_view]).unwrap();
        let (mut p, mut q) = ([0.0; 4], [0.0; 4]);
        broadcast.read(0, [&mut p, &mut q]);
        assert_eq!(p, [5.0, 2.0, 17.0, 14.0]);
        assert_eq!(q, [0.0, 2.0, 1.0, 3.0]);
    }

    #[test]
    fn shapes_that_do_not_go_together_are_named() {
        let (a, b) = (ramp(&[2, 3]), ramp(&[2]));
        let error = Broadcast::new(["v", "x"], [&a.view(), &b.view()]).err();
        assert!(matches!(error, Some(Error::Shape { name: "x", .. })));
    }
}
