//! Fixed chunks, fixed trees: parallel loops whose results do not depend on the number of threads.
//!
//! Loops run on the rayon pool that is current where they are called (`ThreadPool::install` chooses
//! one); without the feature `parallel`, or under [`Control::sequential`], on the calling thread.

use core::ops::Range;

use crate::{Control, Error};

/// Calls `body(start, chunk)` on consecutive chunks of `out` of length `size` (the last may be
/// shorter); `start` is the chunk's offset in `out`.
///
/// # Errors
/// [`Error::Cancelled`], or the first error of `body` met.
pub fn for_each_chunk<T: Send>(
    out: &mut [T],
    size: usize,
    control: &Control,
    body: impl Fn(usize, &mut [T]) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let step = |(index, chunk): (usize, &mut [T])| {
        control.check()?;
        let units = chunk.len() as u64;
        body(index * size, chunk)?;
        control.advance(units);
        Ok(())
    };
    #[cfg(feature = "parallel")]
    if out.len() > size && !control.is_sequential() {
        use rayon::prelude::*;
        return out.par_chunks_mut(size).enumerate().try_for_each(step);
    }
    out.chunks_mut(size).enumerate().try_for_each(step)
}

/// Calls `body(start, chunks)` on the chunks of length `size` of several arrays at once. Each array
/// has length `n`, or is empty: a slot not in use.
///
/// # Errors
/// [`Error::Cancelled`], or the first error of `body` met.
pub fn for_each_chunk_of<T: Send, const N: usize>(
    out: [&mut [T]; N],
    n: usize,
    size: usize,
    control: &Control,
    body: impl Fn(usize, [&mut [T]; N]) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    split_into_chunks(out, 0..n, size, control, &body)
}

fn split_into_chunks<T: Send, const N: usize>(
    out: [&mut [T]; N],
    range: Range<usize>,
    size: usize,
    control: &Control,
    body: &(impl Fn(usize, [&mut [T]; N]) -> Result<(), Error> + Sync),
) -> Result<(), Error> {
    if range.is_empty() {
        return Ok(());
    }
    if range.len() <= size {
        control.check()?;
        let units = range.len() as u64;
        body(range.start, out)?;
        control.advance(units);
        return Ok(());
    }
    let half = range.len().div_ceil(size).div_ceil(2) * size;
    let (left, right) = (range.start..range.start + half, range.start + half..range.end);
    let mut tails = [const { None }; N];
    let mut index = 0;
    let heads = out.map(|slice| {
        let (head, tail) = slice.split_at_mut(half.min(slice.len()));
        tails[index] = Some(tail);
        index += 1;
        head
    });
    let tails = tails.map(Option::unwrap_or_default);
    #[cfg(feature = "parallel")]
    if !control.is_sequential() {
        let (a, b) = rayon::join(
            || split_into_chunks(heads, left, size, control, body),
            || split_into_chunks(tails, right, size, control, body),
        );
        return a.and(b);
    }
    split_into_chunks(heads, left, size, control, body)?;
    split_into_chunks(tails, right, size, control, body)
}

/// Calls `body(index, chunk, item)` on the chunks of `out` of length `size`, each with the item of the
/// same index. Counts no progress: for the inner loops of an iteration.
///
/// # Errors
/// [`Error::Cancelled`], or the first error of `body` met.
pub fn for_each_chunk_with<T: Send, U: Send>(
    out: &mut [T],
    size: usize,
    items: &mut [U],
    control: &Control,
    body: impl Fn(usize, &mut [T], &mut U) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let step = |(index, (chunk, item)): (usize, (&mut [T], &mut U))| {
        control.check()?;
        body(index, chunk, item)
    };
    #[cfg(feature = "parallel")]
    if items.len() > 1 && !control.is_sequential() {
        use rayon::prelude::*;
        return out.par_chunks_mut(size).zip(items.par_iter_mut()).enumerate().try_for_each(step);
    }
    out.chunks_mut(size).zip(items).enumerate().try_for_each(step)
}

/// Maps the consecutive blocks of `0..n` of length `size` and merges neighbours pairwise, then pairs of
/// pairs, in a tree that depends on `n` and `size` alone. `None` where `n` is 0.
///
/// More blocks behind leave the pairs as they are: who reads a stream can add up the sums of its parts
/// in the same tree, if these begin at multiples of their length, a power of two of blocks.
///
/// # Errors
/// [`Error::Cancelled`], or the first error of `map` met.
pub fn reduce_blocks<A: Send>(
    n: usize,
    size: usize,
    control: &Control,
    map: impl Fn(Range<usize>) -> Result<A, Error> + Sync,
    merge: impl Fn(A, A) -> A + Sync,
) -> Result<Option<A>, Error> {
    let split = |rows: Range<usize>, at| (rows.start..rows.start + at, rows.start + at..rows.end);
    Tree { size, control, split, map, merge }.reduce(0..n, n)
}

/// Maps the consecutive chunks of `out` of length `size`, which `map(start, chunk)` may change, and
/// merges what it gives in the tree of [`reduce_blocks`].
///
/// # Errors
/// [`Error::Cancelled`], or the first error of `map` met.
pub fn reduce_chunks<T: Send, A: Send>(
    out: &mut [T],
    size: usize,
    control: &Control,
    map: impl Fn(usize, &mut [T]) -> Result<A, Error> + Sync,
    merge: impl Fn(A, A) -> A + Sync,
) -> Result<Option<A>, Error> {
    let n = out.len();
    Tree { size, control, split: cut, map: |(start, chunk)| map(start, chunk), merge }
        .reduce((0, out), n)
}

type Chunk<'a, T> = (usize, &'a mut [T]);

fn cut<T>((start, chunk): Chunk<'_, T>, at: usize) -> (Chunk<'_, T>, Chunk<'_, T>) {
    let (left, right) = chunk.split_at_mut(at);
    ((start, left), (start + at, right))
}

/// What is done at the nodes of a tree, whose leaves are `size` long.
struct Tree<'a, S, F, M> {
    size: usize,
    control: &'a Control,
    split: S,
    map: F,
    merge: M,
}

impl<S, F, M> Tree<'_, S, F, M> {
    /// The value of `input`, of length `n`.
    fn reduce<I: Send, A: Send>(&self, input: I, n: usize) -> Result<Option<A>, Error>
    where
        S: Fn(I, usize) -> (I, I) + Sync,
        F: Fn(I) -> Result<A, Error> + Sync,
        M: Fn(A, A) -> A + Sync,
    {
        if n == 0 { Ok(None) } else { self.node(input, n).map(Some) }
    }

    fn node<I: Send, A: Send>(&self, input: I, n: usize) -> Result<A, Error>
    where
        S: Fn(I, usize) -> (I, I) + Sync,
        F: Fn(I) -> Result<A, Error> + Sync,
        M: Fn(A, A) -> A + Sync,
    {
        if n <= self.size {
            self.control.check()?;
            let value = (self.map)(input)?;
            self.control.advance(n as u64);
            return Ok(value);
        }
        // The largest power of two of leaves that leaves some.
        let at = self.size << (n.div_ceil(self.size) - 1).ilog2();
        let (left, right) = (self.split)(input, at);
        #[cfg(feature = "parallel")]
        if !self.control.is_sequential() {
            let (a, b) = rayon::join(|| self.node(left, at), || self.node(right, n - at));
            return Ok((self.merge)(a?, b?));
        }
        Ok((self.merge)(self.node(left, at)?, self.node(right, n - at)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree over the blocks of `0..n`, written with parentheses.
    fn written(n: usize, size: usize, control: &Control) -> String {
        let map = |rows: Range<usize>| Ok(format!("{}-{}", rows.start, rows.end));
        let merge = |a, b| format!("({a} {b})");
        reduce_blocks(n, size, control, map, merge).unwrap().unwrap_or_default()
    }

    /// The same by a reader who knows nothing of what follows: sums of as many leaves are added up as
    /// soon as both are there, and those that are left at the end, the last ones first.
    fn streamed(n: usize, size: usize) -> String {
        let mut sums: Vec<(usize, String)> = Vec::new();
        for start in (0..n).step_by(size) {
            sums.push((1, format!("{start}-{}", (start + size).min(n))));
            while let [.., (a, _), (b, _)] = sums[..]
                && a == b
            {
                join_last(&mut sums);
            }
        }
        while sums.len() > 1 {
            join_last(&mut sums);
        }
        sums.pop().map_or_else(String::new, |sum| sum.1)
    }

    fn join_last(sums: &mut Vec<(usize, String)>) {
        let ((b, right), (a, left)) = (sums.pop().unwrap(), sums.pop().unwrap());
        sums.push((a + b, format!("({left} {right})")));
    }

    #[test]
    fn sums_stay_as_they_are_when_more_rows_follow() {
        assert_eq!(written(7, 2, &Control::new()), "((0-2 2-4) (4-6 6-7))");
        for (n, size) in (0..140).map(|n| (n, 2)).chain([(100, 1), (33, 64), (64, 64), (65, 64)]) {
            let expected = streamed(n, size);
            assert_eq!(written(n, size, &Control::new()), expected);
            assert_eq!(written(n, size, &Control::sequential()), expected);
        }
        // A first power of two of whole leaves is a node of every longer tree, and so is the next.
        for n in 16..80 {
            let whole = written(n, 2, &Control::new());
            assert!(whole.contains(&written(16, 2, &Control::new())), "{n}");
            assert!(n < 32 || whole.contains("((16-18 18-20) (20-22 22-24))"), "{n}");
        }
    }

    #[test]
    fn chunks_are_changed_once_and_merged_in_the_same_tree() {
        for n in 0..70 {
            let mut out = vec![0; n];
            let map = |start, chunk: &mut [usize]| {
                for value in chunk.iter_mut() {
                    *value += 1;
                }
                Ok(format!("{start}-{}", start + chunk.len()))
            };
            let merge = |a, b| format!("({a} {b})");
            let control = Control::new();
            let found = reduce_chunks(&mut out, 3, &control, map, merge).unwrap();
            assert_eq!(found.unwrap_or_default(), written(n, 3, &Control::new()));
            assert!(out.iter().all(|&value| value == 1));
            assert_eq!(control.done(), n as u64);
        }
    }
}
