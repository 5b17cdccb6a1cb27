//! Keyed random streams: the same key and stream index give the same numbers, in any order.
//!
//! The generator is `ChaCha` with 8 rounds (Bernstein 2008) run as a counter: block `n` of stream `i`
//! under a key is a pure function of the three. A parallel kernel gives every fixed chunk of its
//! output a stream of its own, so the number of threads never changes a result.
//!
//! ```
//! use pyprobe_core::random::{Key, Stream};
//! let mut normals = [0.0; 5];
//! Stream::new(Key::new(1), 0).fill_normal(&mut normals);
//! let mut again = [0.0; 5];
//! Stream::new(Key::new(1), 0).fill_normal(&mut again);
//! assert_eq!(normals, again);
//! ```

use crate::Real;
use crate::simd::vectorize;
use crate::special::math;

/// Blocks made together, one a vector lane; 16 of them overflow the registers.
const LANES: usize = 8;
/// 64-bit words in a batch of [`LANES`] blocks of 64 bytes.
const BATCH: usize = 8 * LANES;

/// What a family of streams is keyed by: a seed, and a tag that separates uses of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    seed: u128,
    tag: u64,
}

impl Key {
    /// The key of a 128-bit seed.
    pub const fn new(seed: u128) -> Self {
        Self { seed, tag: 0 }
    }

    /// A key for another use of the same seed; its streams are independent of this key's.
    ///
    /// Tags add up: the tags of nested uses must stay distinct as sums.
    #[must_use]
    pub const fn with_tag(self, tag: u64) -> Self {
        Self { seed: self.seed, tag: self.tag.wrapping_add(tag) }
    }
}

/// One stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream {
    key: Key,
    index: u64,
    /// Number of the next block to make.
    counter: u64,
    /// Words made for single draws, and how many of them are used up.
    words: [u64; BATCH],
    used: usize,
}

impl Stream {
    /// The stream number `index` under `key`, at its beginning.
    pub const fn new(key: Key, index: u64) -> Self {
        Self { key, index, counter: 0, words: [0; BATCH], used: BATCH }
    }

    /// The stream where [`fill_uniform`](Self::fill_uniform) goes on with its number `skipped`, a
    /// multiple of 64.
    pub(crate) const fn skipping(key: Key, index: u64, skipped: u64) -> Self {
        debug_assert!(skipped.is_multiple_of(BATCH as u64));
        Self { counter: skipped / 8, ..Self::new(key, index) }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        if self.used == BATCH {
            let (key, index, counter) = (self.key, self.index, self.counter);
            let words = &mut self.words;
            vectorize(
                #[inline(always)]
                || *words = batch(key, index, counter),
            );
            self.counter += LANES as u64;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// A uniform variate of the open interval (0, 1), a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        uniform_of(self.next_u64())
    }

    /// A uniform integer below `n`, which must be positive; unbiased.
    pub fn below(&mut self, n: u64) -> u64 {
        // Lemire 2019: the high half of a product, redrawn where the low half falls short of a
        // remainder, which is below n: a division is seldom needed.
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            let low = product as u64;
            if low >= n || low >= n.wrapping_neg() % n {
                return (product >> 64) as u64;
            }
        }
    }

    /// Fills `out` with uniform variates of the open interval (0, 1).
    pub fn fill_uniform(&mut self, out: &mut [f64]) {
        self.fill(
            out,
            #[inline(always)]
            |words| words.map(uniform_of),
        );
    }

    /// Fills `out` with standard normal variates, by Box and Muller's transform.
    ///
    /// The radius is cut at 8.57, which a true normal pair passes once in 10^16 draws.
    pub fn fill_normal<T: Real>(&mut self, out: &mut [T]) {
        self.fill(
            out,
            #[inline(always)]
            |words| normals_of(&words),
        );
    }

    /// Fills `out` from whole batches; what is left of the last one is thrown away.
    #[inline(always)]
    fn fill<T: Real>(&mut self, out: &mut [T], variates: impl Fn([u64; BATCH]) -> [f64; BATCH]) {
        let (key, index) = (self.key, self.index);
        let mut counter = self.counter;
        self.counter += (out.len().div_ceil(BATCH) * LANES) as u64;
        vectorize(
            #[inline(always)]
            || {
                for chunk in out.chunks_mut(BATCH) {
                    let values = variates(batch(key, index, counter));
                    counter += LANES as u64;
                    for (o, v) in chunk.iter_mut().zip(values) {
                        *o = T::from_f64(v);
                    }
                }
            },
        );
    }
}

/// The 53-bit number (k + 1/2) 2^-52 for the high 52 bits k of a word.
#[inline(always)]
fn uniform_of(word: u64) -> f64 {
    from_mantissa(word) - (1.0 - 0.5 * f64::EPSILON)
}

/// A number of [1, 2) with the high 52 bits of `word` as its mantissa.
#[inline(always)]
fn from_mantissa(word: u64) -> f64 {
    f64::from_bits((word >> 12) | 0x3FF0_0000_0000_0000)
}

/// Standard normals: the first half of the words makes radii, the second half angles.
#[inline(always)]
fn normals_of(words: &[u64; BATCH]) -> [f64; BATCH] {
    let mut out = [0.0; BATCH];
    let (first, second) = out.split_at_mut(BATCH / 2);
    for i in 0..BATCH / 2 {
        let radius = (-2.0 * math::ln(uniform_of(words[i]))).sqrt();
        let word = words[i + BATCH / 2];
        // An angle of (-pi/4, pi/4) from the high bits; the two lowest bits, of which the angle
        // does not depend, reflect it in the diagonal and in the origin.
        let (sin, cos) = sin_cos(from_mantissa(word) - (1.5 - 0.5 * f64::EPSILON));
        let (x, y) = if word & 1 == 0 { (cos, sin) } else { (sin, cos) };
        let sign = (word & 2) << 62;
        let radius = f64::from_bits(radius.to_bits() ^ sign);
        first[i] = radius * x;
        second[i] = radius * y;
    }
    out
}

/// sin and cos of (pi/2) t for |t| <= 1/2.
#[inline(always)]
pub(crate) fn sin_cos(t: f64) -> (f64, f64) {
    let z = t * t;
    (t * math::horner(&SIN, z), math::horner(&COS, z))
}

/// sin(pi t / 2) / t and cos(pi t / 2) in powers of t^2, on |t| <= 1/2: Taylor coefficients, whose
/// first neglected terms are below 3e-18.
const SIN: [f64; 9] = [
    core::f64::consts::FRAC_PI_2,
    -0.6459640975062463,
    0.07969262624616705,
    -0.004681754135318688,
    0.00016044118478735983,
    -3.598843235212085e-06,
    5.692172921967927e-08,
    -6.688035109811468e-10,
    6.0669357311061955e-12,
];
const COS: [f64; 9] = [
    1.0,
    -1.2337005501361697,
    0.25366950790104803,
    -0.02086348076335296,
    0.0009192602748394266,
    -2.5202042373060607e-05,
    4.710874778818172e-07,
    -6.386603083791852e-09,
    6.565963114979473e-11,
];

/// The words of [`LANES`] consecutive blocks: pairs of 32-bit words, lane by lane.
#[inline(always)]
fn batch(key: Key, index: u64, counter: u64) -> [u64; BATCH] {
    let rows = blocks(key, index, counter);
    let mut words = [0; BATCH];
    for (pair, out) in rows.chunks_exact(2).zip(words.chunks_exact_mut(LANES)) {
        for l in 0..LANES {
            out[l] = u64::from(pair[0][l]) | (u64::from(pair[1][l]) << 32);
        }
    }
    words
}

/// [`LANES`] consecutive blocks of `ChaCha8`; row i holds word i of every block.
#[inline(always)]
fn blocks(key: Key, index: u64, counter: u64) -> [[u32; LANES]; 16] {
    let mut start = [[0; LANES]; 16];
    // "expand 32-byte k", then 128 bits of seed, 64 of tag, 64 of zero.
    let fixed = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
    for i in 0..4 {
        start[i] = [fixed[i]; LANES];
        start[4 + i] = [(key.seed >> (32 * i)) as u32; LANES];
    }
    start[8] = [key.tag as u32; LANES];
    start[9] = [(key.tag >> 32) as u32; LANES];
    let numbers: [u64; LANES] = core::array::from_fn(|l| counter + l as u64);
    start[12] = numbers.map(|n| n as u32);
    start[13] = numbers.map(|n| (n >> 32) as u32);
    start[14] = [index as u32; LANES];
    start[15] = [(index >> 32) as u32; LANES];

    let mut x = start;
    for _ in 0..4 {
        quarter(&mut x, 0, 4, 8, 12);
        quarter(&mut x, 1, 5, 9, 13);
        quarter(&mut x, 2, 6, 10, 14);
        quarter(&mut x, 3, 7, 11, 15);
        quarter(&mut x, 0, 5, 10, 15);
        quarter(&mut x, 1, 6, 11, 12);
        quarter(&mut x, 2, 7, 8, 13);
        quarter(&mut x, 3, 4, 9, 14);
    }
    for (row, first) in x.iter_mut().zip(&start) {
        for l in 0..LANES {
            row[l] = row[l].wrapping_add(first[l]);
        }
    }
    x
}

/// The cipher's quarter round on rows a, b, c, d.
#[inline(always)]
fn quarter(x: &mut [[u32; LANES]; 16], a: usize, b: usize, c: usize, d: usize) {
    let (mut p, mut q, mut r, mut s) = (x[a], x[b], x[c], x[d]);
    p = add(p, q);
    s = xor_rotate::<16>(s, p);
    r = add(r, s);
    q = xor_rotate::<12>(q, r);
    p = add(p, q);
    s = xor_rotate::<8>(s, p);
    r = add(r, s);
    q = xor_rotate::<7>(q, r);
    (x[a], x[b], x[c], x[d]) = (p, q, r, s);
}

#[inline(always)]
fn add(mut x: [u32; LANES], y: [u32; LANES]) -> [u32; LANES] {
    for l in 0..LANES {
        x[l] = x[l].wrapping_add(y[l]);
    }
    x
}

#[inline(always)]
fn xor_rotate<const N: u32>(mut x: [u32; LANES], y: [u32; LANES]) -> [u32; LANES] {
    for l in 0..LANES {
        x[l] = (x[l] ^ y[l]).rotate_left(N);
    }
    x
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exact cases
mod tests {
    use super::*;

    /// Words of the first block, as the 32-bit words of the cipher's specification.
    fn first_block(key: Key, index: u64, counter: u64) -> [u32; 16] {
        blocks(key, index, counter).map(|row| row[0])
    }

    #[test]
    fn blocks_are_those_of_the_published_cipher() {
        // Strombergson, draft-strombergson-chacha-test-vectors, ChaCha8 with a 256-bit key: TC1
        // (all zero) and TC2 (first key byte 1), bytes read as little-endian words.
        let expected = [
            0x3e00ef2f,
            0x895f40d6,
            0x7f5bb8e8,
            0x1f09a5a1,
            0x2c840ec3,
            0xce9a7f3b,
            0x181be188,
            0xef711a1e,
            0x984ce172,
            0xb9216f41,
            0x9f445367,
            0x456d5619,
            0x314a42a3,
            0xda86b001,
            0x387bfdb8,
            0x0e0cfe42u32,
        ];
        assert_eq!(first_block(Key::new(0), 0, 0), expected.map(u32::swap_bytes));
        let second = blocks(Key::new(0), 0, 0).map(|row| row[1]);
        assert_eq!(second, first_block(Key::new(0), 0, 1));
        assert_eq!(first_block(Key::new(1), 0, 0)[0], 0xcf5ee9a0u32.swap_bytes());
    }

    #[test]
    fn vector_code_and_scalar_code_give_the_same_bits() {
        let key = Key::new(0x0123456789abcdef0fedcba987654321).with_tag(7);
        let mut stream = Stream::new(key, 3);
        let mut out = [0.0; 3 * BATCH - 5];
        stream.fill_normal(&mut out);
        let scalar: Vec<f64> =
            (0..3).flat_map(|i| normals_of(&batch(key, 3, i * LANES as u64))).collect();
        assert_eq!(out[..], scalar[..out.len()]);
        assert_eq!(stream.next_u64(), batch(key, 3, 3 * LANES as u64)[0]);
    }

    #[test]
    fn keys_tags_and_indices_give_different_streams() {
        let draw = |key: Key, index| Stream::new(key, index).next_u64();
        let key = Key::new(5);
        assert_ne!(draw(key, 0), draw(key, 1));
        assert_ne!(draw(key, 0), draw(key.with_tag(1), 0));
        assert_ne!(draw(key, 0), draw(Key::new(5 << 64), 0));
        assert_ne!(draw(key, 0), draw(Key::new(6), 0));
    }

    /// Largest distance between the empirical law of `sample` and `cdf`, times sqrt(n). By
    /// Massart's inequality it passes 2.70 with probability below 1e-6.
    fn kolmogorov(sample: &mut [f64], cdf: impl Fn(f64) -> f64) -> f64 {
        sample.sort_unstable_by(f64::total_cmp);
        let n = sample.len() as f64;
        let distance = sample.iter().enumerate().fold(0.0_f64, |worst, (i, &x)| {
            let p = cdf(x);
            worst.max(p - i as f64 / n).max((i + 1) as f64 / n - p)
        });
        distance * n.sqrt()
    }

    #[test]
    fn uniforms_follow_the_uniform_law() {
        let mut x = vec![0.0; 200_000];
        Stream::new(Key::new(1), 0).fill_uniform(&mut x);
        assert!(x.iter().all(|&u| u > 0.0 && u < 1.0));
        assert!(kolmogorov(&mut x, |u| u) < 2.70);
        assert_eq!(uniform_of(0), 0.5 * f64::EPSILON);
        assert_eq!(uniform_of(u64::MAX), 1.0 - 0.5 * f64::EPSILON);
    }

    #[test]
    fn radii_and_angles_of_normal_pairs_follow_their_laws() {
        // (x, y) is standard normal in the plane exactly where the squared radius is exponential,
        // the angle uniform, and the two independent.
        let mut z = vec![0.0; 400_000];
        Stream::new(Key::new(2), 0).fill_normal(&mut z);
        let pairs: Vec<(f64, f64)> = z
            .chunks_exact(BATCH)
            .flat_map(|c| (0..BATCH / 2).map(|i| (c[i], c[i + BATCH / 2])))
            .collect();
        let mut radius: Vec<f64> =
            pairs.iter().map(|(x, y)| -(-0.5 * (x * x + y * y)).exp_m1()).collect();
        let mut angle: Vec<f64> =
            pairs.iter().map(|(x, y)| y.atan2(*x) / core::f64::consts::TAU + 0.5).collect();
        // Uniform and independent: so is their sum modulo 1.
        let mut sum: Vec<f64> = radius.iter().zip(&angle).map(|(a, b)| (a + b).fract()).collect();
        assert!(kolmogorov(&mut radius, |u| u) < 2.70);
        assert!(kolmogorov(&mut angle, |u| u) < 2.70);
        assert!(kolmogorov(&mut sum, |u| u) < 2.70);
    }

    #[test]
    fn sin_cos_agrees_with_the_standard_library() {
        for i in -500..=500 {
            let t = f64::from(i) / 1000.0;
            let (sin, cos) = sin_cos(t);
            let (expected_sin, expected_cos) = (t * core::f64::consts::FRAC_PI_2).sin_cos();
            assert!((sin - expected_sin).abs() <= 3e-16 * expected_sin.abs());
            assert!((cos - expected_cos).abs() <= 2e-16);
        }
    }

    #[test]
    fn integers_below_a_bound_are_uniform() {
        let mut stream = Stream::new(Key::new(3), 0);
        let mut counts = [0.0; 7];
        for _ in 0..70_000 {
            counts[stream.below(7) as usize] += 1.0;
        }
        // Chi-squared with 6 degrees of freedom passes 38.3 with probability 1e-6.
        let chi: f64 = counts.iter().map(|c: &f64| (c - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 38.3, "{chi}");
    }
}
