//! From directions to a fitted mixture, with this crate alone.
//!
//! Draws 30 000 directions from three von Mises-Fisher distributions in 64 dimensions, fits one
//! distribution (with the standard error of its concentration) to the directions of the first, then
//! a mixture to all of them, and compares what it finds with what it drew from.
//!
//! Run it with `cargo run --release --example mixture`.

use pyprobe_core::cluster::{merge_directions, spherical_seeds};
use pyprobe_core::directional::mixture::{Assignment, Components, step};
use pyprobe_core::directional::vmf;
use pyprobe_core::linalg::Rows;
use pyprobe_core::ndarray::{Array1, Array2, Axis, aview1};
use pyprobe_core::random::{Key, Stream};
use pyprobe_core::special::{bessel_ratio_inverse, log_hyp0f1};
use pyprobe_core::{Control, Error};

const DIM: usize = 64;
const SIZES: [usize; 3] = [15_000, 10_000, 5_000];
const CONCENTRATIONS: [f64; 3] = [40.0, 80.0, 20.0];

fn main() -> Result<(), Error> {
    let control = Control::new();
    let (x, locs) = draw(&control)?;

    // One distribution: the mean direction, and kappa from the mean resultant length R.
    let first = vmf::mean_direction(x.view().split_at(Axis(0), SIZES[0]).0, None, &control)?;
    let (concentration, standard_error) = (first.concentration(), first.concentration_stderr());
    println!("one distribution: concentration {concentration:.2} +- {standard_error:.2}");
    assert!((concentration - CONCENTRATIONS[0]).abs() < 5.0 * standard_error);

    // All three: more seeds than components, their clusters merged; then EM, until the
    // log-likelihood stands still.
    let rows = Rows::dense(x.view())?;
    let seeds = spherical_seeds(rows, SIZES.len(), 3, Key::new(2), &control)?;
    let seeds = x.select(Axis(0), &seeds).reversed_axes();
    let (scale, offset) = (Array1::ones(seeds.ncols()), Array1::zeros(seeds.ncols()));
    let nearest =
        Components { directions: seeds.view(), scale: scale.view(), offset: offset.view() };
    let clusters = step(rows, None, nearest, Assignment::Hard, &control)?.resultants;
    let groups = merge_directions(clusters.view(), SIZES.len(), &control)?;
    let mut fit = Fit::start(&clusters, &groups);
    let mut last = f64::NEG_INFINITY;
    for iteration in 1..=100 {
        let log_likelihood = fit.improve(&x, &control)?;
        if log_likelihood - last < 1e-9 * log_likelihood.abs() {
            println!("mixture: {iteration} iterations, log-likelihood {log_likelihood:.1}");
            break;
        }
        last = log_likelihood;
    }

    println!("\n  weight        concentration   cosine with the truth");
    for (k, loc) in locs.iter().enumerate() {
        let cosines = fit.directions.t().dot(loc) / &fit.norms;
        let (found, cosine) =
            cosines.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap_or((0, &0.0));
        let truth = (SIZES[k] as f64 / x.nrows() as f64, CONCENTRATIONS[k]);
        println!(
            "  {:.3} ({:.3})  {:6.2} ({:5.2})  {cosine:.6}",
            fit.weights[found], truth.0, fit.concentrations[found], truth.1
        );
        assert!((fit.concentrations[found] / truth.1 - 1.0).abs() < 0.03 && *cosine > 0.998);
    }
    Ok(())
}

/// Directions around three random axes, and those axes.
fn draw(control: &Control) -> Result<(Array2<f64>, Vec<Array1<f64>>), Error> {
    let mut x = Array2::zeros((0, DIM));
    let mut locs = Vec::new();
    for (k, (&n, &concentration)) in SIZES.iter().zip(&CONCENTRATIONS).enumerate() {
        let mut normals = vec![0.0; DIM];
        Stream::new(Key::new(1), k as u64).fill_normal(&mut normals);
        let normals = Array1::from(normals);
        let norm: f64 = normals.dot(&normals);
        let loc = normals / norm.sqrt();
        let rows = vmf::sample(
            loc.view().insert_axis(Axis(0)),
            aview1(&[concentration]),
            n,
            Key::new(1).with_tag(1 + k as u64),
            control,
        )?;
        x.append(Axis(0), rows.view()).map_err(|_| Error::Shape {
            name: "rows",
            expected: format!("({n}, {DIM})"),
            got: rows.shape().to_vec(),
        })?;
        locs.push(loc);
    }
    Ok((x, locs))
}

/// A mixture on its way to the maximum of the likelihood.
struct Fit {
    weights: Vec<f64>,
    /// Unnormalised: the resultants of the last M-step, one a column, and their norms.
    directions: Array2<f64>,
    norms: Array1<f64>,
    concentrations: Vec<f64>,
}

impl Fit {
    /// Sums up the clusters of each group.
    fn start(clusters: &Array2<f64>, groups: &[usize]) -> Self {
        let k = SIZES.len();
        let mut directions = Array2::zeros((DIM, k));
        for (cluster, &group) in clusters.columns().into_iter().zip(groups) {
            let mut direction = directions.column_mut(group);
            direction += &cluster;
        }
        let norms = directions.columns().into_iter().map(|s| s.dot(&s).sqrt()).collect();
        Self {
            weights: vec![1.0 / k as f64; k],
            directions,
            norms,
            // Flat responsibilities go nowhere: start with clusters about as tight as a dimension.
            concentrations: vec![DIM as f64; k],
        }
    }

    /// One EM iteration; returns the log-likelihood before it, relative to the uniform density.
    fn improve(&mut self, x: &Array2<f64>, control: &Control) -> Result<f64, Error> {
        let order = DIM as f64 / 2.0 - 1.0;
        let concentrations = Array1::from(self.concentrations.clone());
        let scale = &concentrations / &self.norms;
        let offset: Array1<f64> = (self.weights.iter().zip(&concentrations))
            .map(|(weight, kappa)| weight.ln() - log_hyp0f1(order + 1.0, kappa * kappa / 4.0))
            .collect();
        let components = Components {
            directions: self.directions.view(),
            scale: scale.view(),
            offset: offset.view(),
        };
        let rows = Rows::dense(x.view())?;
        let sums = step(rows, None, components, Assignment::Soft, control)?;

        self.norms = sums.squared_norms.iter().map(|square| square.sqrt()).collect();
        let lengths: Vec<f64> = self.norms.iter().zip(&sums.counts).map(|(s, n)| s / n).collect();
        let inverse = |&length: &f64| bessel_ratio_inverse(order, length, 1.0 - length);
        self.concentrations = lengths.iter().map(inverse).collect();
        self.weights = sums.counts.iter().map(|count| count / x.nrows() as f64).collect();
        self.directions = sums.resultants;
        Ok(sums.log_likelihood)
    }
}
