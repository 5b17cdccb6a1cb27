//! Values and derivatives outside of the open domain: at 0, at infinity, and NaN beyond.

use core::cmp::Ordering;

use super::Function;
use super::jet::Partials;
use super::large::trigamma;

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// The limits of `function` at a point where v or x is 0, infinite or out of the domain. NaN where
/// there is no limit.
pub(crate) fn edge(function: Function, v: f64, x: f64) -> Partials {
    use Function::{
        BesselRatio, BesselRatioComplement, LogHyp0f1, LogIv, LogIve, LogKv, LogKve, LogMatern,
    };
    let nan = Partials { f: NAN, v: NAN, x: NAN, vv: NAN, vx: NAN, xx: NAN };
    if v.is_nan() || x.is_nan() || x < 0.0 || (v.is_infinite() && x.is_infinite()) {
        return nan;
    }
    match function {
        LogIv | LogIve | BesselRatio | BesselRatioComplement if v < 0.0 => nan,
        LogHyp0f1 | LogMatern if v <= 0.0 => nan,
        LogIv | LogIve => {
            let p = log_i(v, x);
            if function == LogIv { p } else { scaled_by_exponential(p, x, -1.0) }
        }
        LogKv | LogKve => {
            let p = log_k(v.abs(), x);
            let p = if function == LogKv { p } else { scaled_by_exponential(p, x, 1.0) };
            if v < 0.0 { Partials { v: -p.v, vx: -p.vx, ..p } } else { p }
        }
        BesselRatio => ratio(v, x),
        BesselRatioComplement => {
            let p = ratio(v, x);
            Partials { f: 1.0 - p.f, x: -p.x, vx: -p.vx, ..p }
        }
        LogHyp0f1 => log_hyp0f1(v, x),
        LogMatern => log_matern(v, x),
    }
}

/// e^(sign x) times the function; at infinity it is the algebraic factor that remains.
fn scaled_by_exponential(p: Partials, x: f64, sign: f64) -> Partials {
    let f = if x == INF { -INF } else { p.f };
    Partials { f, x: p.x + sign, ..p }
}

fn log_i(v: f64, x: f64) -> Partials {
    if x == INF {
        return Partials { f: INF, x: 1.0, ..Partials::default() };
    }
    if v == INF {
        return Partials { f: -INF, v: -INF, x: INF, vv: 0.0, vx: 1.0 / x, xx: -INF };
    }
    // x = 0: I_v(x) ~ (x/2)^v / Gamma(v + 1), and I_0(x) ~ 1 + x^2/4.
    let vv = -trigamma(v + 1.0);
    if v == 0.0 {
        Partials { f: 0.0, v: -INF, x: 0.0, vv, vx: INF, xx: 0.5 }
    } else {
        Partials { f: -INF, v: -INF, x: INF, vv, vx: INF, xx: -INF }
    }
}

fn log_k(v: f64, x: f64) -> Partials {
    if x == INF {
        return Partials { f: -INF, x: -1.0, ..Partials::default() };
    }
    if v == INF {
        return Partials { f: INF, v: INF, x: -INF, vv: 0.0, vx: -1.0 / x, xx: INF };
    }
    // x = 0: K_v(x) ~ Gamma(v) (x/2)^-v / 2, even in v.
    if v == 0.0 {
        Partials { f: INF, v: 0.0, x: -INF, vv: INF, vx: 0.0, xx: INF }
    } else {
        Partials { f: INF, v: INF, x: -INF, vv: trigamma(v), vx: -INF, xx: INF }
    }
}

fn ratio(v: f64, x: f64) -> Partials {
    if x == INF {
        return Partials { f: 1.0, ..Partials::default() };
    }
    if v == INF {
        return Partials::default();
    }
    // x = 0: r ~ x / (2 (v + 1)).
    let slope = 0.5 / (v + 1.0);
    Partials { x: slope, vx: -slope / (v + 1.0), ..Partials::default() }
}

fn log_hyp0f1(b: f64, z: f64) -> Partials {
    if z == INF {
        return Partials { f: INF, v: -INF, vv: trigamma(b), ..Partials::default() };
    }
    if b == INF {
        return Partials::default();
    }
    // z = 0: z/b - z^2 / (2 b^2 (b + 1)) + ..
    let slope = 1.0 / b;
    let vx = -slope * slope;
    Partials { x: slope, vx, xx: vx / (b + 1.0), ..Partials::default() }
}

fn log_matern(nu: f64, x: f64) -> Partials {
    if x == INF {
        return Partials { f: -INF, v: INF, x: -1.0, vv: -trigamma(nu), ..Partials::default() };
    }
    if nu == INF {
        return Partials::default();
    }
    // x = 0: -x^2 / (4 (nu - 1)) for nu > 1, else -c(nu) x^(2 nu) with c > 0, c(1/2) = 1.
    let beside_half = |below: f64, at: f64, above: f64| match nu.total_cmp(&0.5) {
        Ordering::Less => below,
        Ordering::Equal => at,
        Ordering::Greater => above,
    };
    Partials {
        x: beside_half(-INF, -1.0, 0.0),
        vx: if nu > 0.5 { 0.0 } else { INF },
        xx: beside_half(INF, 0.0, if nu > 1.0 { -0.5 / (nu - 1.0) } else { -INF }),
        ..Partials::default()
    }
}
