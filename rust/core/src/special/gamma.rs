//! The gamma function for the small region and for Stirling's series.
//!
//! ln Gamma(1 + v) is written v g(v) - ln(1 + p(v)) with g smooth, p a polynomial and p(0) = 0, so
//! that nothing is lost as v goes to 0 and no product over the integers below v is needed:
//! Gamma(8 + v) = 7! (1 + p(v)) Gamma(1 + v) with p the rising product, and g is a polynomial in
//! t = a - b / (v + pole). The tables are printed by `generate_gamma.py` beside this file.

use super::jet::Jet;
use super::math;

const MOEBIUS_A: f64 = 2.869565217391304;
const MOEBIUS_B: f64 = 83.19565217391305;
const POLE: f64 = 22.5;

/// (ln Gamma(8 + v) - ln Gamma(8)) / v as a polynomial in t; error below 5e-18.
pub(crate) const SLOPE: [f64; 22] = [
    2.359305475161808,
    0.4348345213077945,
    0.03644378281927482,
    0.01663963325551524,
    0.002673437020470811,
    0.001183376350945154,
    0.00023246949747259007,
    0.00010133822724904078,
    2.1968951503527387e-05,
    9.500161917485811e-06,
    2.181781184477722e-06,
    9.396044193792358e-07,
    2.2401202772507661e-07,
    9.629699880738785e-08,
    2.345340727213285e-08,
    1.0077625515518258e-08,
    2.6194667689095867e-09,
    1.1263370513169064e-09,
    2.0211747412555627e-10,
    8.686078062201403e-11,
    5.670946885471606e-11,
    2.4466651403066055e-11,
];

/// psi'(8 + v) as a polynomial in t; error below 2e-15.
pub(crate) const TRIGAMMA: [f64; 20] = [
    0.07143687969476913,
    -0.051538200023276026,
    0.019206280197363926,
    -0.007146139578748407,
    0.0026547117302974537,
    -0.0009846582875896162,
    0.00036465482751241196,
    -0.00013483834703800264,
    4.978320570439756e-05,
    -1.8353121018484315e-05,
    6.7583889145181264e-06,
    -2.4842987926821495e-06,
    9.068187497836058e-07,
    -3.3242324139998316e-07,
    1.288487616873171e-07,
    -4.708378541836058e-08,
    1.1102376569766305e-08,
    -4.059658333534483e-09,
    4.344087587867261e-09,
    -1.5776499591926536e-09,
];

/// p(v) / v in v.
pub(crate) const RISING: [f64; 7] = [
    2.592857142857143,
    2.6055555555555556,
    1.3430555555555554,
    0.3888888888888889,
    0.06388888888888888,
    0.005555555555555556,
    0.0001984126984126984,
];

/// (p'(v) - p'(0) (1 + p(v))) / v in v.
pub(crate) const RISING_SLOPE: [f64; 7] = [
    -1.5117970521541952,
    -2.726666666666667,
    -1.926795634920635,
    -0.6888888888888889,
    -0.1323214285714286,
    -0.013015873015873017,
    -0.0005144557823129252,
];

/// psi(8 + v) - p'(0) as a polynomial in t; error below 2e-17.
pub(crate) const DIGAMMA: [f64; 22] = [
    0.04587154033696962,
    0.7217568397168699,
    -0.00883473217906021,
    0.03136089169076953,
    -0.001120467617277587,
    0.0024544764493432416,
    -0.0001417753929226978,
    0.00022871462863131948,
    -1.789668151742198e-05,
    2.319674633138596e-05,
    -2.253695205301437e-06,
    2.4726673453330746e-06,
    -2.832717523574998e-07,
    2.7233217426169295e-07,
    -3.524833561548939e-08,
    3.0502233242654586e-08,
    -4.715629196625153e-09,
    3.683578529118338e-09,
    -3.591376947814819e-10,
    2.826076393896329e-10,
    -1.4127829215034524e-10,
    9.364443221737147e-11,
];

/// (1/Gamma(1 - u) - 1/Gamma(1 + u)) / 2u in u^2, for |u| <= 1/2; error below 2e-22.
pub(crate) const GAMMA_1: [f64; 9] = [
    -0.5772156649015329,
    0.04200263503409524,
    0.04219773455554432,
    -0.00721894324666241,
    0.00021524167410079872,
    2.0134854943949705e-05,
    -1.133028335412651e-06,
    -6.111757978367613e-09,
    1.1721449739554431e-09,
];

/// (1/Gamma(1 - u) + 1/Gamma(1 + u)) / 2 in u^2, for |u| <= 1/2; error below 3e-21.
pub(crate) const GAMMA_2: [f64; 9] = [
    1.0,
    -0.6558780715202539,
    0.1665386113822917,
    -0.009621971527885256,
    -0.0011651675916885258,
    0.000128050280414672,
    -1.25048005653128e-06,
    -2.0568716058005746e-07,
    5.116656432802304e-09,
];

/// Stirling's coefficients `B_2k / (2k (2k - 1))`, for arguments from 8 on; error below 1e-18.
pub(crate) const STIRLING: [f64; 10] = [
    0.08333333333333333,
    -0.002777777777777778,
    0.0007936507936507937,
    -0.0005952380952380953,
    0.0008417508417508417,
    -0.0019175269175269176,
    0.00641025641025641,
    -0.029550653594771242,
    0.17964437236883057,
    -1.3924322169059011,
];

/// t in [-1, 1] for v in [-1, 22].
#[inline(always)]
fn reduced(v: f64) -> f64 {
    (-MOEBIUS_B).mul_add(1.0 / (v + POLE), MOEBIUS_A)
}

/// p(v) = Gamma(8 + v) / (Gamma(8) Gamma(1 + v)) - 1 = (1 + v)(1 + v/2)..(1 + v/7) - 1.
#[inline(always)]
pub(crate) fn rising<const N: usize>(v: f64) -> Jet<N> {
    let v = Jet::<N>::linear(v, 1.0);
    v * v.horner(&RISING)
}

/// g(v) = ln(Gamma(8 + v) / Gamma(8)) / v, for -1 < v <= 22.
#[inline(always)]
pub(crate) fn mean_log(v: f64) -> f64 {
    math::horner(&SLOPE, reduced(v))
}

/// psi(1 + v) for -1 < v <= 22.
#[inline(always)]
pub(crate) fn digamma_1p(v: f64) -> f64 {
    let p = rising::<1>(v).value();
    math::horner(&DIGAMMA, reduced(v)) - v * math::horner(&RISING_SLOPE, v) / (1.0 + p)
}

/// psi'(1 + v) for -1 < v <= 22.
#[inline(always)]
pub(crate) fn trigamma_1p(v: f64) -> f64 {
    let log = rising::<3>(v).shift(1.0).ln_with_value(0.0);
    math::horner(&TRIGAMMA, reduced(v)) - log.second()
}

/// ln Gamma(1 + v) for -1 < v <= 22, relatively accurate at v = 0 too.
#[inline(always)]
pub(crate) fn ln_gamma_1p<const N: usize>(v: f64) -> Jet<N> {
    let p = rising::<1>(v).value();
    let mut c = [0.0; N];
    c[0] = v.mul_add(mean_log(v), -math::ln_1p(p));
    if const { N > 1 } {
        c[1] = digamma_1p(v);
    }
    if const { N > 2 } {
        c[2] = 0.5 * trigamma_1p(v);
    }
    Jet(c)
}

/// [G1, G2] at u in [-1/2, 1/2]: 1/Gamma(1 + u) = G2 - u G1 and 1/Gamma(1 - u) = G2 + u G1.
#[inline(always)]
pub(crate) fn reciprocal_gamma_parts<const N: usize>(u: Jet<N>) -> [Jet<N>; 2] {
    let square = u * u;
    [square.horner(&GAMMA_1), square.horner(&GAMMA_2)]
}

/// Binet's ln Gamma(v) - ((v - 1/2) ln v - v + ln(2 pi)/2), for v >= 8.
#[inline(always)]
pub(crate) fn binet<const N: usize>(v: f64) -> Jet<N> {
    let r = 1.0 / v;
    let z = r * r;
    let mut c = [0.0; N];
    c[0] = r * math::horner(&STIRLING, z);
    if const { N > 1 } {
        c[1] = -z * math::horner(&times_odd(STIRLING), z);
    }
    if const { N > 2 } {
        // Half of (2k - 1) 2k B_2k / (2k (2k - 1)) v^-(2k+1).
        c[2] = z * r * math::horner(&times_index(times_odd(STIRLING)), z);
    }
    Jet(c)
}

/// `c_k` (2k + 1), the derivative of `c_k` z^(2k+1).
const fn times_odd<const K: usize>(mut c: [f64; K]) -> [f64; K] {
    let mut k = 0;
    while k < K {
        c[k] *= (2 * k + 1) as f64;
        k += 1;
    }
    c
}

/// `c_k` (k + 1).
const fn times_index<const K: usize>(mut c: [f64; K]) -> [f64; K] {
    let mut k = 0;
    while k < K {
        c[k] *= (k + 1) as f64;
        k += 1;
    }
    c
}

#[cfg(test)]
mod tests {
    use core::f64::consts::{FRAC_2_SQRT_PI, LN_2, PI};

    use super::*;

    const EULER: f64 = 0.5772156649015329;

    #[test]
    fn ln_gamma_1p_is_the_logarithm_of_the_factorial() {
        let mut log = 0.0;
        for n in 1..=22 {
            log += f64::from(n).ln();
            assert!((ln_gamma_1p::<1>(f64::from(n)).value() - log).abs() <= 1e-15 * log.max(1.0));
        }
        assert_eq!(ln_gamma_1p::<1>(0.0).value().to_bits(), 0);
    }

    #[test]
    fn ln_gamma_1p_keeps_its_digits_near_0() {
        // ln Gamma(1 + v) = -gamma v + zeta(2) v^2 / 2 - zeta(3) v^3 / 3 + ..
        for v in [1e-5, -1e-5, 1e-12, -1e-150] {
            let exact = v * (PI * PI / 12.0 * v - EULER - 1.2020569031595942 / 3.0 * v * v);
            assert!((ln_gamma_1p::<1>(v).value() / exact - 1.0).abs() <= 1e-15);
        }
    }

    #[test]
    fn derivatives_of_ln_gamma_agree_with_known_values() {
        // psi(1) = -gamma, psi(1/2) = -gamma - 2 ln 2, psi'(1) = pi^2/6, psi'(1/2) = pi^2/2.
        let at = |v| (digamma_1p(v), trigamma_1p(v));
        let (one, half) = (at(0.0), at(-0.5));
        assert!((one.0 + EULER).abs() <= 4e-16);
        assert!((half.0 + EULER + 2.0 * LN_2).abs() <= 2e-15);
        assert!((one.1 - PI * PI / 6.0).abs() <= 4e-15);
        assert!((half.1 - PI * PI / 2.0).abs() <= 2e-14);
        // psi(n + 1) = psi(n) + 1/n and psi'(n + 1) = psi'(n) - 1/n^2.
        let (mut psi, mut slope) = (-EULER, PI * PI / 6.0);
        for n in 1..=22 {
            let r = 1.0 / f64::from(n);
            psi += r;
            slope -= r * r;
            let (ours, our_slope) = at(f64::from(n));
            assert!((ours - psi).abs() <= 2e-15 && (our_slope - slope).abs() <= 4e-15);
        }
    }

    #[test]
    fn parts_of_the_reciprocal_give_gamma_at_the_halves() {
        // 1/Gamma(3/2) = 2/sqrt(pi), 1/Gamma(1/2) = 1/sqrt(pi).
        let u = Jet::<1>::constant(0.5);
        let [g1, g2] = reciprocal_gamma_parts(u);
        assert!(((g2 - u * g1).value() - FRAC_2_SQRT_PI).abs() <= 3e-16);
        assert!(((g2 + u * g1).value() - FRAC_2_SQRT_PI / 2.0).abs() <= 3e-16);
    }

    #[test]
    fn binet_and_its_derivatives_complete_stirling() {
        let half_log = 0.5 * (2.0 * PI).ln();
        for n in 8..=22 {
            let v = f64::from(n);
            let (ours, exact) = (binet::<3>(v), ln_gamma_1p::<3>(v - 1.0));
            let main = (v - 0.5) * v.ln() - v + half_log;
            assert!((ours.value() - (exact.value() - main)).abs() <= 4e-15 * main);
            assert!((ours.first() - (exact.first() - v.ln() + 0.5 / v)).abs() <= 2e-15);
            let main = 1.0 / v + 0.5 / (v * v);
            assert!((ours.second() - (exact.second() - main)).abs() <= 2e-15);
        }
    }
}
