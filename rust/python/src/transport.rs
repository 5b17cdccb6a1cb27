//! `pyprobe.transport`: entropic optimal transport.

use std::sync::atomic::{AtomicUsize, Ordering};

use numpy::{Element, IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyprobe_core::Real;
use pyprobe_core::linalg::Metric;
use pyprobe_core::transport::{
    self, Clouds, Cost, Dense, Method, Options, Plan, PositionGradient, Potentials, Problem,
    Solution,
};

use crate::gate;

/// Picoseconds that an exponential takes, with what is done around it.
const EXPONENTIAL: usize = 1000;

/// Costs: a matrix in C order, or two clouds and a metric, in either float type.
#[derive(FromPyObject)]
pub enum Costs<'py> {
    /// float64
    Double(PyReadonlyArray2<'py, f64>),
    /// float32
    Single(PyReadonlyArray2<'py, f32>),
    /// float64
    DoubleClouds(PyReadonlyArray2<'py, f64>, PyReadonlyArray2<'py, f64>, String),
    /// float32
    SingleClouds(PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, f32>, String),
}

fn clouds<T: Real + Element>(
    x: &PyReadonlyArray2<'_, T>,
    y: &PyReadonlyArray2<'_, T>,
    metric: &str,
) -> PyResult<Clouds> {
    Clouds::new(x.as_array(), y.as_array(), self::metric(metric)).map_err(gate::exception)
}

fn metric(name: &str) -> Metric {
    match name {
        "euclidean" => Metric::Euclidean,
        "cityblock" => Metric::Cityblock,
        _ => Metric::SquaredEuclidean,
    }
}

/// Runs `$body` with `$cost` the costs, whatever they are made of.
macro_rules! with_cost {
    ($costs:expr, |$cost:ident| $body:expr) => {
        match $costs {
            Costs::Double(values) => {
                let $cost = &Dense::new(values.as_array()).map_err(gate::exception)?;
                $body
            }
            Costs::Single(values) => {
                let $cost = &Dense::new(values.as_array()).map_err(gate::exception)?;
                $body
            }
            Costs::DoubleClouds(x, y, metric) => {
                let $cost = &clouds(&x, &y, &metric)?;
                $body
            }
            Costs::SingleClouds(x, y, metric) => {
                let $cost = &clouds(&x, &y, &metric)?;
                $body
            }
        }
    };
}

type Vector<'py> = PyReadonlyArray1<'py, f64>;

fn method(name: &str, sns: (usize, f64)) -> Method {
    match name {
        "sns" => Method::SparseNewton { n_start: sns.0, density: sns.1 },
        "log" => Method::Log,
        "scaling" => Method::Scaling,
        "newton" => Method::Newton,
        _ => Method::Auto,
    }
}

fn work<C: Cost>(cost: &C, passes: usize) -> usize {
    let (n, m) = cost.shape();
    n.saturating_mul(m).saturating_mul(passes).saturating_mul(EXPONENTIAL) / 1000
}

/// Passes to reckon with: so many at least that no iteration runs long where no signal is looked for.
fn passes(max_iter: usize) -> usize {
    20.max(max_iter / 50)
}

/// Solves a problem; a dict of what was found. `watch(n_iter, error)` is called now and then, and
/// answers whether to go on.
#[pyfunction]
#[pyo3(signature = (cost, a, b, epsilon, penalties, *, method, tol, max_iter, max_newton, relaxation, memory, sns=None, start=None, watch=None))]
#[allow(clippy::too_many_arguments)] // one crossing
pub fn sinkhorn<'py>(
    py: Python<'py>,
    cost: Costs<'py>,
    a: Vector<'py>,
    b: Vector<'py>,
    epsilon: f64,
    penalties: (f64, f64),
    method: &str,
    tol: f64,
    max_iter: usize,
    max_newton: usize,
    relaxation: bool,
    memory: (usize, usize),
    sns: Option<(usize, f64)>,
    start: Option<(Vector<'py>, Vector<'py>)>,
    watch: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = Options {
        method: self::method(method, sns.unwrap_or((20, 4.0))),
        tol,
        max_iter,
        max_newton,
        relaxation,
        memory: memory.0,
        newton_memory: memory.1,
    };
    let (a, b) = (a.as_slice()?, b.as_slice()?);
    let start = match &start {
        Some((f, g)) => Some((f.as_slice()?, g.as_slice()?)),
        None => None,
    };
    let look = |py: Python<'_>, done: u64, value: f64| match &watch {
        Some(watch) => watch.call1(py, (done, value))?.extract(py),
        None => Ok(true),
    };
    let found = with_cost!(cost, |cost| {
        let problem = Problem { cost, a, b, epsilon, penalties };
        gate::run_watched(
            py,
            work(cost, passes(max_iter)),
            |control| transport::sinkhorn(&problem, &options, start, control),
            look,
        )
    })?;
    solution(py, found)
}

/// The problem of `a` with itself for symmetric costs; as `sinkhorn`.
#[pyfunction]
#[pyo3(signature = (cost, a, epsilon, penalty, *, tol, max_iter, start=None))]
#[allow(clippy::too_many_arguments)] // one crossing
pub fn sinkhorn_symmetric<'py>(
    py: Python<'py>,
    cost: Costs<'py>,
    a: Vector<'py>,
    epsilon: f64,
    penalty: f64,
    tol: f64,
    max_iter: usize,
    start: Option<Vector<'py>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = Options { tol, max_iter, ..Options::default() };
    let a = a.as_slice()?;
    let start = start.as_ref().map(|f| f.as_slice()).transpose()?;
    let penalties = (penalty, penalty);
    let found = with_cost!(cost, |cost| {
        let problem = Problem { cost, a, b: a, epsilon, penalties };
        gate::run(py, work(cost, passes(max_iter)), |control| {
            transport::sinkhorn_symmetric(&problem, &options, start, control)
        })
    })?;
    solution(py, found)
}

fn solution(py: Python<'_>, found: Solution) -> PyResult<Bound<'_, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("f", found.f.into_pyarray(py))?;
    result.set_item("g", found.g.into_pyarray(py))?;
    result.set_item("phi", found.potentials.phi.into_pyarray(py))?;
    result.set_item("gamma", found.potentials.gamma.into_pyarray(py))?;
    result.set_item("errors", found.errors.into_pyarray(py))?;
    result.set_item("value", found.value)?;
    result.set_item("marginal_error", found.marginal_error)?;
    result.set_item("n_iter", found.n_iter)?;
    result.set_item("n_newton", found.n_newton)?;
    result.set_item("n_cg", found.n_cg)?;
    result.set_item("converged", found.converged)?;
    result.set_item("stopped", found.stopped)?;
    result.set_item("rate", found.rate)?;
    Ok(result)
}

/// Solves each of a list of problems; the dicts of what was found, in their order.
#[pyfunction]
#[pyo3(signature = (costs, a, b, epsilon, penalties, *, method, tol, max_iter, max_newton, relaxation, memory))]
#[allow(clippy::too_many_arguments)] // one crossing
pub fn sinkhorn_batch<'py>(
    py: Python<'py>,
    costs: Vec<Costs<'py>>,
    a: Vec<Vector<'py>>,
    b: Vec<Vector<'py>>,
    epsilon: Vec<f64>,
    penalties: (f64, f64),
    method: &str,
    tol: f64,
    max_iter: usize,
    max_newton: usize,
    relaxation: bool,
    memory: (usize, usize),
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    fn run<'py, T: Real + Element>(
        py: Python<'py>,
        costs: &[PyReadonlyArray2<'py, T>],
        weights: (&[Vector<'py>], &[Vector<'py>]),
        epsilon: &[f64],
        penalties: (f64, f64),
        options: &Options,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let costs: Result<Vec<_>, _> =
            costs.iter().map(|cost| Dense::new(cost.as_array())).collect();
        let costs = costs.map_err(gate::exception)?;
        let mut problems = Vec::with_capacity(costs.len());
        let sides = weights.0.iter().zip(weights.1);
        for ((cost, (a, b)), &epsilon) in costs.iter().zip(sides).zip(epsilon) {
            let (a, b) = (a.as_slice()?, b.as_slice()?);
            problems.push(Problem { cost, a, b, epsilon, penalties });
        }
        let work = costs.iter().map(|cost| work(cost, passes(options.max_iter))).sum();
        let failed = AtomicUsize::new(0);
        let found = gate::run(py, work, |control| {
            transport::sinkhorn_batch(&problems, options, control).map_err(|(index, error)| {
                failed.store(index, Ordering::Relaxed);
                error
            })
        });
        let found = found.map_err(|error| {
            if !error.is_instance_of::<gate::PyprobeError>(py) {
                return error;
            }
            let index = failed.load(Ordering::Relaxed);
            PyErr::from_type(error.get_type(py), format!("problem {index}: {}", error.value(py)))
        })?;
        found.into_iter().map(|found| solution(py, found)).collect()
    }
    let options = Options {
        method: self::method(method, (0, 0.0)),
        tol,
        max_iter,
        max_newton,
        relaxation,
        memory: memory.0,
        newton_memory: memory.1,
    };
    let weights = (a.as_slice(), b.as_slice());
    let (mut double, mut single) = (Vec::new(), Vec::new());
    for cost in costs {
        match cost {
            Costs::Double(cost) => double.push(cost),
            Costs::Single(cost) => single.push(cost),
            _ => return Err(PyTypeError::new_err("a batch of clouds is not offered")),
        }
    }
    if single.is_empty() {
        run(py, &double, weights, &epsilon, penalties, &options)
    } else {
        run(py, &single, weights, &epsilon, penalties, &options)
    }
}

/// A plan: `(cost, epsilon, phi, gamma)`.
type PlanOf<'py> = (Costs<'py>, f64, Vector<'py>, Vector<'py>);

fn potentials(phi: &Vector<'_>, gamma: &Vector<'_>) -> Potentials {
    Potentials { phi: phi.as_array().to_vec(), gamma: gamma.as_array().to_vec() }
}

/// The plan, in the type of its costs.
#[pyfunction]
pub fn transport_plan<'py>(py: Python<'py>, plan: PlanOf<'py>) -> PyResult<Bound<'py, PyAny>> {
    fn run<'py, T: Real + Element>(
        py: Python<'py>,
        cost: &impl Cost,
        epsilon: f64,
        potentials: &Potentials,
    ) -> PyResult<Bound<'py, PyAny>> {
        let plan = Plan { cost, epsilon, potentials };
        let found = gate::run(py, work(cost, 1), |control| plan.dense::<T>(control))?;
        Ok(found.into_pyarray(py).into_any())
    }
    let (costs, epsilon, phi, gamma) = plan;
    let potentials = potentials(&phi, &gamma);
    let single = matches!(costs, Costs::Single(..) | Costs::SingleClouds(..));
    with_cost!(costs, |cost| {
        if single {
            run::<f32>(py, cost, epsilon, &potentials)
        } else {
            run::<f64>(py, cost, epsilon, &potentials)
        }
    })
}

/// `(indptr, indices, values)` of the entries that are at least `threshold`.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn transport_sparse_plan<'py>(
    py: Python<'py>,
    plan: PlanOf<'py>,
    threshold: f64,
) -> PyResult<(Bound<'py, PyArray1<usize>>, Bound<'py, PyArray1<usize>>, Bound<'py, PyArray1<f64>>)>
{
    let (costs, epsilon, phi, gamma) = plan;
    let potentials = &potentials(&phi, &gamma);
    let found = with_cost!(costs, |cost| {
        let plan = Plan { cost, epsilon, potentials };
        gate::run(py, work(cost, 1), |control| plan.sparse(threshold, control))
    })?;
    let (indices, values) = (found.indices.into_pyarray(py), found.values.into_pyarray(py));
    Ok((found.indptr.into_pyarray(py), indices, values))
}

/// Row sums, column sums and `<P, C>`.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn transport_sums<'py>(
    py: Python<'py>,
    plan: PlanOf<'py>,
) -> PyResult<(Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>, f64)> {
    let (costs, epsilon, phi, gamma) = plan;
    let potentials = &potentials(&phi, &gamma);
    let found = with_cost!(costs, |cost| {
        let plan = Plan { cost, epsilon, potentials };
        gate::run(py, work(cost, 2), |control| plan.sums(control))
    })?;
    Ok((found.rows.into_pyarray(py), found.columns.into_pyarray(py), found.cost))
}

/// The gradients of `<P, C>` in the points of both clouds at this plan, then what `transport_sums`
/// returns.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn transport_position_gradient<'py>(
    py: Python<'py>,
    plan: PlanOf<'py>,
) -> PyResult<(Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<f64>>)> {
    fn run<T: Real + Element>(
        py: Python<'_>,
        x: &PyReadonlyArray2<'_, T>,
        y: &PyReadonlyArray2<'_, T>,
        metric: &str,
        epsilon: f64,
        potentials: &Potentials,
    ) -> PyResult<PositionGradient> {
        let (x, y, metric) = (x.as_array(), y.as_array(), self::metric(metric));
        let work = x.nrows().saturating_mul(y.len()).saturating_mul(2 * EXPONENTIAL) / 1000;
        gate::run(py, work, |control| {
            transport::position_gradient(x, y, metric, epsilon, potentials, control)
        })
    }
    let (costs, epsilon, phi, gamma) = plan;
    let potentials = &potentials(&phi, &gamma);
    let found = match costs {
        Costs::DoubleClouds(x, y, metric) => run(py, &x, &y, &metric, epsilon, potentials)?,
        Costs::SingleClouds(x, y, metric) => run(py, &x, &y, &metric, epsilon, potentials)?,
        _ => return Err(PyTypeError::new_err("a matrix of costs has no points")),
    };
    Ok((found.x.into_pyarray(py), found.y.into_pyarray(py)))
}

/// `P v`, or `P' v` where `transpose`, for a matrix `v`.
#[pyfunction]
pub fn transport_apply<'py>(
    py: Python<'py>,
    plan: PlanOf<'py>,
    v: PyReadonlyArray2<'py, f64>,
    transpose: bool,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let (costs, epsilon, phi, gamma) = plan;
    let (potentials, v) = (&potentials(&phi, &gamma), v.as_array());
    let found = with_cost!(costs, |cost| {
        let plan = Plan { cost, epsilon, potentials };
        gate::run(py, work(cost, 1 + v.ncols()), |control| {
            if transpose { plan.apply_transpose(v, control) } else { plan.apply(v, control) }
        })
    })?;
    Ok(found.into_pyarray(py))
}

/// The regularized cost of the rounded plan; `rounding` holds its `(x, y, u, v)`.
#[pyfunction]
pub fn transport_rounded_value<'py>(
    py: Python<'py>,
    plan: PlanOf<'py>,
    a: Vector<'py>,
    b: Vector<'py>,
    rounding: (Vector<'py>, Vector<'py>, Vector<'py>, Vector<'py>),
) -> PyResult<f64> {
    let (costs, epsilon, phi, gamma) = plan;
    let potentials = &potentials(&phi, &gamma);
    let (a, b) = (a.as_slice()?, b.as_slice()?);
    let rounding = transport::Rounding {
        x: rounding.0.as_slice()?,
        y: rounding.1.as_slice()?,
        u: rounding.2.as_slice()?,
        v: rounding.3.as_slice()?,
    };
    with_cost!(costs, |cost| {
        let plan = Plan { cost, epsilon, potentials };
        gate::run(py, work(cost, 4), |control| plan.rounded_value(a, b, rounding, control))
    })
}

/// `(x, y)`: the system of a Newton step at the plan, solved for these right-hand sides.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn transport_solve_adjoint<'py>(
    py: Python<'py>,
    plan: PlanOf<'py>,
    a: Vector<'py>,
    b: Vector<'py>,
    penalties: (f64, f64),
    rows: Vector<'py>,
    columns: Vector<'py>,
) -> PyResult<(Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>)> {
    let (costs, epsilon, phi, gamma) = plan;
    let potentials = &potentials(&phi, &gamma);
    let (a, b) = (a.as_slice()?, b.as_slice()?);
    let (rows, columns) = (rows.as_slice()?, columns.as_slice()?);
    let (x, y) = with_cost!(costs, |cost| {
        let problem = Problem { cost, a, b, epsilon, penalties };
        gate::run(py, work(cost, 20), |control| {
            transport::solve_adjoint(&problem, potentials, rows, columns, control)
        })
    })?;
    Ok((x.into_pyarray(py), y.into_pyarray(py)))
}

/// `log sum_j exp(v_kj - cost_ij / epsilon)`, shape (k, n).
#[pyfunction]
pub fn transport_log_kernel_sums<'py>(
    py: Python<'py>,
    cost: Costs<'py>,
    epsilon: f64,
    v: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let v = v.as_array();
    let found = with_cost!(cost, |cost| {
        gate::run(py, work(cost, v.nrows()), |control| {
            transport::log_kernel_sums(cost, epsilon, v, control)
        })
    })?;
    Ok(found.into_pyarray(py))
}
