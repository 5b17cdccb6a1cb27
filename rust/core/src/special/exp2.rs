//! Powers of two of many numbers at once: by arithmetic alone, or with AVX-512 by a table in registers.

use super::math::{ROUND, horner};
use crate::simd::Instructions;

/// (2^r - 1) / r on [-1/2, 1/2], for 2^r to 3.4e-18: the coefficients of the even powers, and those of
/// the odd.
const WIDE: ([f64; 6], [f64; 5]) = (
    [
        core::f64::consts::LN_2,
        0.055504108664820084,
        0.001333355814677483,
        1.5252733492952222e-05,
        1.0178199636717702e-07,
        4.434762438677473e-10,
    ],
    [
        0.2402265069591013,
        0.009618129107594109,
        0.00015403530457123798,
        1.321543527718275e-06,
        7.07378403883575e-09,
    ],
);

/// 2^x for x in [-1022, 1023], 0 for x <= -1023 and NaN, inf for x >= 1024: hardly any subnormal
/// numbers, and no reduction such as an exponential in base e begins with.
///
/// The error is below 1.15 units of the last place. Which of the two neighbours comes out may depend on
/// the instruction set, but not on the other numbers.
#[inline(always)]
pub(crate) fn exp2_or_zero<const N: usize>(on: Instructions, x: [f64; N]) -> [f64; N] {
    const { assert!(N.is_multiple_of(8)) };
    let mut out = [0.0; N];
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = on.avx512 {
        for (out, x) in out.as_chunks_mut().0.iter_mut().zip(x.as_chunks().0) {
            *out = avx512::exp2_or_zero(simd, *x);
        }
        return out;
    }
    for (out, x) in out.iter_mut().zip(x) {
        *out = by_polynomial(x);
    }
    out
}

#[inline(always)]
fn by_polynomial(x: f64) -> f64 {
    // The low bits of `x + SHIFT` are the biased exponent of 2^k: no bits for -1023, so that the
    // product is 0 exactly, and those of infinity for 1024.
    const SHIFT: f64 = ROUND + 1023.0;
    let x = if x > -1023.0 { x } else { -1023.0 };
    let x = if x < 1024.0 { x } else { 1024.0 };
    let shifted = x + SHIFT;
    let r = x - (shifted - SHIFT);
    // Even and odd powers side by side: half the latency.
    let s = r * r;
    let (even, odd) = WIDE;
    let slope = horner(&odd, s).mul_add(r, horner(&even, s));
    slope.mul_add(r, 1.0) * f64::from_bits(shifted.to_bits() << 52)
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use core::arch::x86_64::{__m512d, _CMP_GE_OQ};

    use pulp::{cast, x86::V4};

    use super::ROUND;

    /// 2^(j / 16)
    const TABLE: [[f64; 8]; 2] = [
        [
            1.0,
            1.0442737824274138,
            1.0905077326652577,
            1.1387886347566916,
            1.189207115002721,
            1.241857812073484,
            1.2968395546510096,
            1.3542555469368927,
        ],
        [
            core::f64::consts::SQRT_2,
            1.4768261459394993,
            1.5422108254079407,
            1.6104903319492543,
            1.681792830507429,
            1.7562521603732995,
            1.8340080864093424,
            1.9152065613971474,
        ],
    ];

    /// (2^r - 1) / r on [-1/32, 1/32], for 2^r to 1.5e-17.
    const NARROW: [f64; 6] = [
        0.6931471805599457,
        0.24022650695910075,
        0.0555041086566393,
        0.009618129106919537,
        0.0013333781576784268,
        0.00015403723980749256,
    ];

    /// 2^(k + j / 16) 2^r with the second factor from a polynomial, half as long as that on an interval
    /// of length 1.
    #[inline(always)]
    pub(super) fn exp2_or_zero(simd: V4, x: [f64; 8]) -> [f64; 8] {
        // The low bits of `x + SHIFT` are those of k + j / 16 in sixteenths.
        const SHIFT: f64 = ROUND / 16.0;
        let on = simd.avx512f;
        let all = |value| on._mm512_set1_pd(value);
        let x: __m512d = cast(x);
        let shifted = on._mm512_add_pd(x, all(SHIFT));
        let sixteenths = on._mm512_sub_pd(shifted, all(SHIFT));
        let r = on._mm512_sub_pd(x, sixteenths);
        let [low, high] = TABLE.map(cast);
        // Looks at the last four bits of the index alone.
        let power = on._mm512_permutex2var_pd(low, cast(shifted), high);
        let mut slope = all(NARROW[5]);
        for c in NARROW[..5].iter().rev() {
            slope = on._mm512_fmadd_pd(slope, r, all(*c));
        }
        let value = on._mm512_fmadd_pd(on._mm512_mul_pd(power, r), slope, power);
        // Times 2^k, for k the sixteenths rounded down; the mask leaves no subnormal number.
        let is_normal = on._mm512_cmp_pd_mask::<_CMP_GE_OQ>(x, all(-1022.0));
        cast(on._mm512_maskz_scalef_pd(is_normal, value, sixteenths))
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // Exact values are expected.
mod tests {
    use super::*;
    use crate::simd::vectorize_with;

    /// Both ways, where the machine has both.
    fn both(x: f64) -> [f64; 2] {
        let dispatched = vectorize_with(
            #[inline(always)]
            |on| exp2_or_zero(on, [x; 8])[7],
        );
        [by_polynomial(x), dispatched]
    }

    // The standard library is itself good to about half an ulp, so 1.0 here means that the two
    // round to neighbours at worst.
    #[test]
    fn powers_are_within_one_ulp_of_the_standard_library() {
        for i in 0..300_000 {
            let x = -1022.0 + f64::from(i) * 0.0068166;
            let reference = x.exp2();
            let ulp = f64::from_bits(reference.to_bits() + 1) - reference;
            for found in both(x) {
                assert!((found - reference).abs() <= ulp, "2^{x}: {found}");
            }
        }
    }

    #[test]
    fn powers_at_integers_and_ends_are_exact() {
        for k in -1022..1024 {
            assert_eq!(both(f64::from(k)), [f64::from(k).exp2(); 2]);
        }
        for x in [f64::NEG_INFINITY, f64::NAN, -1e300, -1023.0, -1075.0] {
            assert_eq!(both(x), [0.0; 2]);
        }
        for x in [f64::INFINITY, 1e300, 1024.0, 1100.0] {
            assert_eq!(both(x), [f64::INFINITY; 2]);
        }
    }

    #[test]
    fn numbers_do_not_mix() {
        let x: [f64; 32] = core::array::from_fn(|i| (i as f64 * 1.3).sin() * 300.0);
        let found = vectorize_with(
            #[inline(always)]
            |on| exp2_or_zero(on, x),
        );
        for (found, x) in found.into_iter().zip(x) {
            assert_eq!(found, both(x)[1]);
        }
    }
}
