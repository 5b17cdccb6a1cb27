//! How much of a second thread a kernel gets, beside a bare rayon loop over the same work.
//!
//! Both loops evaluate log I at a million points, in the crate's own chunks: one through
//! [`evaluate`], which broadcasts, gathers and polls the [`Control`]; the other through nothing but
//! `par_chunks_mut` around a closed formula of about the same cost. They are timed in turn.
//!
//! ```text
//! cargo run --release --example thread_scaling
//! ```

use std::time::{Duration, Instant};

use ndarray::Array1;
use pyprobe_core::Control;
use pyprobe_core::special::{Function, evaluate};
use rayon::ThreadPool;
use rayon::prelude::*;

const N: usize = 1_000_000;
const CHUNK: usize = 2048;
const ROUNDS: usize = 21;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let grid = |low: f64, high: f64, stride: usize| {
        Array1::from_shape_fn(N, |i| {
            let place = (i * stride % N) as f64 / N as f64;
            (low.ln() + (high / low).ln() * place).exp()
        })
    };
    let (v, x) = (grid(1e-3, 1e6, 617_411), grid(1e-6, 1e7, 1));
    let kernel = || {
        let (v, x) = (v.view().into_dyn(), x.view().into_dyn());
        evaluate(Function::LogIv, &[(0, 0)], v, x, &Control::default()).map(drop)
    };
    let mut out = vec![0.0; N];
    let mut bare = || {
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
            for (offset, y) in chunk.iter_mut().enumerate() {
                let (v, x) = (v[i * CHUNK + offset], x[i * CHUNK + offset]);
                *y = v.hypot(x) - v * (v / x).asinh();
            }
        });
    };

    let pools = [pool(1)?, pool(2)?];
    let mut times = [(); 2].map(|()| [(); 2].map(|()| Vec::new()));
    for _ in 0..ROUNDS {
        for (pool, [of_kernel, of_bare]) in pools.iter().zip(&mut times) {
            let start = Instant::now();
            pool.install(kernel)?;
            of_kernel.push(start.elapsed());
            let start = Instant::now();
            pool.install(&mut bare);
            of_bare.push(start.elapsed());
        }
    }
    let [one, two] = times.map(|loops| loops.map(median));
    let speedups = [0, 1].map(|i| one[i].as_secs_f64() / two[i].as_secs_f64());
    println!("kernel    {:?} -> {:?}: {:.3} times as fast", one[0], two[0], speedups[0]);
    println!("bare loop {:?} -> {:?}: {:.3} times as fast", one[1], two[1], speedups[1]);
    println!("relative  {:.3}", speedups[0] / speedups[1]);
    Ok(())
}

fn pool(n: usize) -> Result<ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new().num_threads(n).build()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
