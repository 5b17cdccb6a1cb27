//! Nanoseconds an element of the log-Bessel kernels on one core, by function and region.
//!
//! `cargo bench --bench special [function ..]`. Points are log-uniform over v in [1e-3, 1e6] and x
//! in [1e-6, 1e7], or the part of that in one region of s = hypot(v, x); the least of several runs.

use std::hint::black_box;
use std::time::Instant;

use ndarray::{Array1, ArrayD};
use pyprobe_core::Control;
use pyprobe_core::special::{Function, evaluate};

const N: usize = 100_000;
const RUNS: usize = 7;

const FUNCTIONS: [(&str, Function); 6] = [
    ("log_iv", Function::LogIv),
    ("log_kv", Function::LogKv),
    ("bessel_ratio", Function::BesselRatio),
    ("bessel_ratio_complement", Function::BesselRatioComplement),
    ("log_hyp0f1", Function::LogHyp0f1),
    ("log_matern", Function::LogMatern),
];

/// Name and bounds of s and of x.
const REGIONS: [(&str, [f64; 2], [f64; 2]); 6] = [
    ("all", [0.0, f64::INFINITY], [0.0, f64::INFINITY]),
    ("s < 22, x < 1", [0.0, 22.0], [0.0, 1.0]),
    ("s < 22, x > 1", [0.0, 22.0], [1.0, 22.0]),
    ("22 < s < 32", [22.0, 32.0], [0.0, 32.0]),
    ("80 < s < 1000", [80.0, 1000.0], [0.0, 1000.0]),
    ("s > 1000", [1000.0, f64::INFINITY], [0.0, f64::INFINITY]),
];

/// The value; with d/dx; with both first derivatives; with all that every function offers.
const REQUESTS: [&[(u8, u8)]; 4] = [
    &[(0, 0)],
    &[(0, 0), (0, 1)],
    &[(0, 0), (1, 0), (0, 1)],
    &[(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)],
];

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    println!(
        "{:24} {:14} {:>9}{:>9}{:>9}{:>9}",
        "ns/element", "region", "value", "+d/dx", "+d/dv", "all"
    );
    for (name, function) in FUNCTIONS {
        if !chosen.is_empty() && !chosen.iter().any(|c| c == name) {
            continue;
        }
        for (region, s, x) in REGIONS {
            let (v, x) = points(s, x);
            print!("{name:24} {region:14} ");
            for request in REQUESTS {
                print!("{:9.2}", time(function, request, &v, &x) * 1e9 / N as f64);
            }
            println!();
        }
    }
    let one = Array1::from_vec(vec![3.0]).into_dyn();
    let calls = 10_000;
    let start = Instant::now();
    for _ in 0..calls {
        black_box(run(Function::LogIv, REQUESTS[0], &one, &one));
    }
    println!(
        "one element: {:.0} ns a call",
        start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    );
}

fn time(function: Function, request: &[(u8, u8)], v: &ArrayD<f64>, x: &ArrayD<f64>) -> f64 {
    (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            black_box(run(function, request, v, x));
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn run(
    function: Function,
    request: &[(u8, u8)],
    v: &ArrayD<f64>,
    x: &ArrayD<f64>,
) -> Vec<ArrayD<f64>> {
    evaluate(function, request, v.view(), x.view(), &Control::sequential()).expect("equal shapes")
}

/// Points of the region by rejection from a rank-one lattice.
fn points(s: [f64; 2], x: [f64; 2]) -> (ArrayD<f64>, ArrayD<f64>) {
    let lattice = |step: f64| (0u32..).map(move |i| (f64::from(i) * step).fract());
    let pairs = lattice(0.754_877_666_2).zip(lattice(0.569_840_291_0));
    let (v, x): (Vec<f64>, Vec<f64>) = pairs
        .map(|(a, b)| (10f64.powf(-3.0 + 9.0 * a), 10f64.powf(-6.0 + 13.0 * b)))
        .filter(|&(v, y)| {
            let h = v.hypot(y);
            s[0] < h && h < s[1] && x[0] < y && y < x[1]
        })
        .take(N)
        .unzip();
    (Array1::from_vec(v).into_dyn(), Array1::from_vec(x).into_dyn())
}
