//! Elementary functions that vectorise: no branches, no tables, one rounding less than 1 ulp.
//!
//! The standard library's `ln` and `exp` are calls that LLVM cannot widen. These are plain
//! arithmetic and bit moves, so a loop over them inside a dispatched body fills the vector lanes.
//! Outside of a dispatched body they give the same bits, but slowly (software fused multiply-add).

/// ln 2 = `LN2_HI` + `LN2_LO`, the first part short enough that `k * LN2_HI` is exact.
const LN2_HI: f64 = 0.6931471803691238;
const LN2_LO: f64 = 1.9082149292705877e-10;

/// Added to an integer below 2^51 in size, it leaves that integer in the low bits.
pub(super) const ROUND: f64 = 6755399441055744.0;

/// R(z)/z on [0, 0.02944], where 2 atanh(s) = 2s + s R(s^2); interpolated at Chebyshev nodes,
/// error below 5e-18 of the logarithm.
const ATANH: [f64; 7] = [
    0.666666666666667,
    0.3999999999989889,
    0.28571428626253836,
    0.22222211089379496,
    0.1818289243253687,
    0.15331611722055008,
    0.14617807153417325,
];

/// (e^r - 1 - r) / r^2 on |r| <= ln(2)/2; interpolated at Chebyshev nodes, error below 2e-19.
const EXP: [f64; 11] = [
    0.5,
    0.1666666666666667,
    0.04166666666666667,
    0.008333333333326084,
    0.0013888888888883711,
    0.0001984126987500228,
    2.480158732567746e-05,
    2.755725517000089e-06,
    2.755727347871858e-07,
    2.5105312729622103e-08,
    2.09147553258932e-09,
];

/// The polynomial with coefficients `c`, constant term first, by Horner's rule.
#[inline(always)]
pub(crate) fn horner<const N: usize>(c: &[f64; N], x: f64) -> f64 {
    let mut sum = c[N - 1];
    for k in (0..N - 1).rev() {
        sum = sum.mul_add(x, c[k]);
    }
    sum
}

/// (k, m) with u = 2^k m, m in [sqrt(1/2), sqrt(2)), for positive normal u.
#[inline(always)]
fn exponent_and_mantissa(u: f64) -> (f64, f64) {
    const SQRT_HALF: u64 = 0x3FE6_A09E_667F_3BCD;
    const ONE: u64 = 0x3FF0_0000_0000_0000;
    // 2^52 in the exponent field turns the integer in the low bits into a float: AVX2 has no
    // conversion from 64-bit integers.
    const TWO_52: u64 = 0x4330_0000_0000_0000;
    let bits = u.to_bits().wrapping_add(ONE - SQRT_HALF);
    let k = f64::from_bits((bits >> 52) | TWO_52) - (4503599627370496.0 + 1023.0);
    let m = f64::from_bits((bits & 0x000F_FFFF_FFFF_FFFF) + SQRT_HALF);
    (k, m)
}

/// ln(2^k (1 + f) (1 + c)) for 1 + f in [sqrt(1/2), sqrt(2)) and c below an ulp.
#[inline(always)]
fn ln_of_parts(k: f64, f: f64, c: f64) -> f64 {
    let s = f / (2.0 + f);
    let z = s * s;
    let r = z * horner(&ATANH, z);
    // 2 atanh(s) = f - f^2/2 + s (f^2/2 + R): the large part f is exact.
    let half_square = 0.5 * f * f;
    let small = s.mul_add(half_square + r, k.mul_add(LN2_LO, c));
    // k LN2_HI is exact and, but for k = 0, larger than f: this sum and its rest are exact.
    let high = k * LN2_HI;
    let sum = high + f;
    let rest = f - (sum - high);
    sum + (rest - (half_square - small))
}

/// ln x, for every x: NaN below 0, -inf at 0.
#[inline(always)]
pub(crate) fn ln(x: f64) -> f64 {
    let subnormal = x < f64::MIN_POSITIVE;
    let (k, m) = exponent_and_mantissa(if subnormal { x * 18014398509481984.0 } else { x });
    let k = if subnormal { k - 54.0 } else { k };
    let value = ln_of_parts(k, m - 1.0, 0.0);
    let value = if x < f64::INFINITY { value } else { x };
    let outside = if x >= 0.0 { f64::NEG_INFINITY } else { f64::NAN };
    if x > 0.0 { value } else { outside }
}

/// ln(1 + x), for every x: NaN below -1, -inf at -1.
#[inline(always)]
pub(crate) fn ln_1p(x: f64) -> f64 {
    let u = 1.0 + x;
    // What the sum has rounded off, exactly, whichever of the two is the larger.
    let back = u - 1.0;
    let lost = (1.0 - (u - back)) + (x - back);
    let (k, m) = exponent_and_mantissa(u);
    // lost / u is about an ulp of the result: 1 / m to 1.4 % will do, and saves a division. Where
    // 2^-k would be no normal number, the quotient is far below an ulp.
    let f = m - 1.0;
    let over_m = f.mul_add(f.mul_add(0.94, -1.075), 1.0);
    let scale = power_of_two(if k > 1000.0 { -1000.0 } else { -k });
    let value = ln_of_parts(k, f, lost * over_m * scale);
    let value = if x < f64::INFINITY { value } else { x };
    let outside = if x >= -1.0 { f64::NEG_INFINITY } else { f64::NAN };
    if x > -1.0 { value } else { outside }
}

/// e^x, for every x; gradual underflow included.
#[inline(always)]
pub(crate) fn exp(x: f64) -> f64 {
    // Beyond these the value is 0 or inf; NaN passes both comparisons.
    let x = if x < -746.0 { -746.0 } else { x };
    let x = if x > 710.0 { 710.0 } else { x };
    let (value, k) = exp_parts(x);
    // 2^k in two factors, each a normal number.
    let half = k.mul_add(0.5, ROUND) - ROUND;
    value * power_of_two(half) * power_of_two(k - half)
}

/// e^x for |x| <= 700, where it is a normal number, and NaN: the bits of [`exp`] in fewer steps.
#[inline(always)]
pub(crate) fn exp_within(x: f64) -> f64 {
    let (value, k) = exp_parts(x);
    value * power_of_two(k)
}

/// (m, k) with e^x = 2^k m, m near 1.
#[inline(always)]
fn exp_parts(x: f64) -> (f64, f64) {
    let k = x.mul_add(core::f64::consts::LOG2_E, ROUND) - ROUND;
    let high = (-k).mul_add(LN2_HI, x);
    let r = (-k).mul_add(LN2_LO, high);
    (1.0 + (r * r).mul_add(horner(&EXP, r), r), k)
}

/// 2^k for an integer k in [-1022, 1023]; 0 for -1023 and inf for 1024.
#[inline(always)]
fn power_of_two(k: f64) -> f64 {
    f64::from_bits((k + (4503599627370496.0 + 1023.0)).to_bits() << 52)
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // Exact values are expected.
mod tests {
    use super::*;

    /// Largest error in units of the last place of the reference.
    fn worst(ours: fn(f64) -> f64, reference: fn(f64) -> f64, points: &[f64]) -> f64 {
        let mut out = vec![0.0; points.len()];
        pulp::Arch::new().dispatch(|| {
            for (o, &x) in out.iter_mut().zip(points) {
                *o = ours(x);
            }
        });
        let mut worst: f64 = 0.0;
        for (&o, &x) in out.iter().zip(points) {
            let r = reference(x);
            let ulp = f64::from_bits(r.abs().to_bits() + 1) - r.abs();
            worst = worst.max((o - r).abs() / ulp);
        }
        worst
    }

    fn grid(low: f64, high: f64, n: usize) -> Vec<f64> {
        (0..n).map(|i| low * (high / low).powf((i as f64 + 0.37) / n as f64)).collect()
    }

    // The standard library is itself good to about half an ulp, so 1.0 here means that the two
    // round to neighbours at worst.
    #[test]
    fn ln_is_within_one_ulp_of_the_standard_library() {
        let mut points = grid(1e-320, 1e308, 100_000);
        points.extend(grid(0.5, 2.0, 100_000));
        points.extend((1..60).flat_map(|k| [1.0 + 0.5f64.powi(k), 1.0 - 0.5f64.powi(k)]));
        assert!(worst(ln, f64::ln, &points) <= 1.0);
    }

    #[test]
    fn ln_1p_is_within_one_ulp_of_the_standard_library() {
        let mut points = grid(1e-300, 1e300, 100_000);
        points.extend(grid(1e-20, 3.0, 100_000));
        points.extend(grid(1e-20, 0.999, 100_000).iter().map(|x| -x));
        assert!(worst(ln_1p, f64::ln_1p, &points) <= 1.0);
    }

    #[test]
    fn exp_is_within_one_ulp_of_the_standard_library() {
        let points: Vec<f64> = (0..300_000).map(|i| -745.0 + f64::from(i) * 0.00485).collect();
        assert!(worst(exp, f64::exp, &points) <= 1.0);
    }

    #[test]
    fn the_ends_of_the_line_are_those_of_the_standard_library() {
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert_eq!(ln(f64::INFINITY), f64::INFINITY);
        assert_eq!(ln(1.0), 0.0);
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan());
        assert_eq!(ln_1p(-1.0), f64::NEG_INFINITY);
        assert_eq!(ln_1p(f64::INFINITY), f64::INFINITY);
        assert_eq!(ln_1p(0.0), 0.0);
        assert!(ln_1p(-1.5).is_nan() && ln_1p(f64::NAN).is_nan());
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp(f64::INFINITY), f64::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f64::NAN).is_nan());
    }
}
