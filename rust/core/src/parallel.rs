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
    if n == 0 {
        return Ok(None);
    }
    tree(
        0..n.div_ceil(size),
        &|block| {
            control.check()?;
            let rows = block * size..((block + 1) * size).min(n);
            let units = rows.len() as u64;
            let value = map(rows)?;
            control.advance(units);
            Ok(value)
        },
        &merge,
        control.is_sequential(),
    )
    .map(Some)
}

fn tree<A: Send>(
    blocks: Range<usize>,
    map: &(impl Fn(usize) -> Result<A, Error> + Sync),
    merge: &(impl Fn(A, A) -> A + Sync),
    sequential: bool,
) -> Result<A, Error> {
    if blocks.len() == 1 {
        return map(blocks.start);
    }
    let middle = blocks.start + (1 << (blocks.len() - 1).ilog2());
    let (left, right) = (blocks.start..middle, middle..blocks.end);
    #[cfg(feature = "parallel")]
    if !sequential {
        let (a, b) = rayon::join(
            || tree(left, map, merge, sequential),
            || tree(right, map, merge, sequential),
        );
        return Ok(merge(a?, b?));
    }
    Ok(merge(tree(left, map, merge, sequential)?, tree(right, map, merge, sequential)?))
}
