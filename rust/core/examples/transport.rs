//! Moves one cloud of points onto another, and says how far from optimal the plan can be.
//!
//! ```text
//! cargo run --release -p pyprobe-core --example transport
//! ```

use pyprobe_core::linalg::Metric;
use pyprobe_core::ndarray::Array2;
use pyprobe_core::random::Key;
use pyprobe_core::transport::{Clouds, Method, Options, Plan, Problem, sinkhorn};
use pyprobe_core::{Control, Error, directional::vmf};

fn main() -> Result<(), Error> {
    let control = Control::new();
    // Two caps on the sphere.
    let cap = |loc: [f64; 3], n, key| {
        let loc = Array2::from_shape_vec((1, 3), loc.to_vec()).expect("three coordinates");
        let concentration = pyprobe_core::ndarray::array![30.0];
        vmf::sample(loc.view(), concentration.view(), n, Key::new(key), &control)
    };
    let (x, y) = (cap([0.0, 0.0, 1.0], 2000, 1)?, cap([0.0, 0.6, 0.8], 1500, 2)?);

    let cost = Clouds::new(x.view(), y.view(), Metric::SquaredEuclidean)?;
    let (a, b) = (vec![1.0 / 2000.0; 2000], vec![1.0 / 1500.0; 1500]);
    let unpenalized = (f64::INFINITY, f64::INFINITY);
    let problem = Problem { cost: &cost, a: &a, b: &b, epsilon: 0.01, penalties: unpenalized };
    for method in [Method::Log, Method::Scaling, Method::Newton, Method::Auto] {
        let options = Options { method, ..Options::default() };
        let solution = sinkhorn(&problem, &options, None, &control)?;
        println!(
            "{method:?}: value {:.9} after {} iterations and {} Newton steps, error {:.1e}",
            solution.value, solution.n_iter, solution.n_newton, solution.marginal_error
        );
        assert!(solution.converged);

        let plan = Plan { cost: &cost, epsilon: 0.01, potentials: &solution.potentials };
        let sums = plan.sums(&control)?;
        let misfit: f64 = sums.rows.iter().zip(&a).map(|(sum, a)| (sum - a).abs()).sum();
        assert!(misfit < 1e-9);
        // Where the first point's mass goes on average.
        let target = plan.apply(y.view(), &control)?.row(0).mapv(|v| v / sums.rows[0]);
        assert!((target.dot(&target) - 1.0).abs() < 0.1);
    }
    Ok(())
}
