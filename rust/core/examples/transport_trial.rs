//! trial
use pyprobe_core::transport::*;
use pyprobe_core::{Control, ndarray::Array2};
use std::time::Instant;
fn main() {
    for n in std::env::args().skip(1).map(|s| s.parse::<usize>().unwrap()) {
        let mut s = 12345u64;
        let mut rnd = move || {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 11) as f64 / (1u64 << 53) as f64
        };
        let x: Vec<[f64; 2]> = (0..n).map(|_| [rnd(), rnd()]).collect();
        let y: Vec<[f64; 2]> = (0..n).map(|_| [rnd() * 0.8 + 0.3, rnd() * rnd()]).collect();
        let c = Array2::from_shape_fn((n, n), |(i, j)| {
            (x[i][0] - y[j][0]).powi(2) + (x[i][1] - y[j][1]).powi(2)
        });
        let mx = c.iter().copied().fold(0.0, f64::max);
        let w = vec![1.0 / n as f64; n];
        let d = Dense::new(c.view()).unwrap();
        for rel in [0.05, 0.005, 1.0 / 1200.0] {
            let p = Problem {
                cost: &d,
                a: &w,
                b: &w,
                epsilon: rel * mx,
                penalties: (f64::INFINITY, f64::INFINITY),
            };
            for (name, m, relax) in [
                ("log", Method::Log, false),
                ("log+", Method::Log, true),
                ("auto", Method::Auto, true),
                ("scal", Method::Scaling, false),
                ("scal+", Method::Scaling, true),
                ("newton", Method::Newton, true),
                ("auto", Method::Auto, true),
            ] {
                if n >= 2000 && name == "log" {
                    continue;
                }
                let o = Options {
                    method: m,
                    relaxation: relax,
                    max_iter: if n > 2000 { 2000 } else { 5000 },
                    ..Options::default()
                };
                let c = Control::sequential();
                let t = Instant::now();
                let r = sinkhorn(&p, &o, None, &c);
                let t = t.elapsed().as_secs_f64();
                match r {
                    Ok(r) => println!(
                        "n={n} rel={rel:.5} {name:7} {:9.3} ms it={} ({:.4} ms/it) newton={} cg={} err={:.1e} conv={} rate={:?}",
                        t * 1e3,
                        r.n_iter,
                        t * 1e3 / (r.n_iter.max(1)) as f64,
                        r.n_newton,
                        r.n_cg,
                        r.marginal_error,
                        r.converged,
                        r.rate
                    ),
                    Err(e) => println!("n={n} rel={rel} {name} {e}"),
                }
            }
        }
    }
}
