//! Python binding of `pyprobe-core`: check, view, call, wrap. No mathematics lives here.

mod bridge;
mod directional;
mod gate;
mod metrics;
mod mixture;
mod pool;
mod sketch;
mod sketching;
mod special;
mod transport;

/// Compiled kernels of pyprobe; private, see the public functions above it.
#[pyo3::pymodule]
mod _core {
    use numpy::{PyArray1, PyArrayMethods};
    use pyo3::prelude::*;

    /// The first array runs code of `NumPy`, where a Ctrl-C that waits would be a panic.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let array = PyArray1::<f64>::zeros(module.py(), 0, false);
        array.try_readonly()?;
        Ok(())
    }

    #[pymodule_export]
    use crate::directional::{
        vmf_marginal_gradient, vmf_mean_direction, vmf_one_minus_dot, vmf_sample,
        vmf_sample_marginal,
    };
    #[pymodule_export]
    use crate::gate::Cancelled;

    #[pymodule_export]
    use crate::metrics::{pair_sums, pair_sums_gradient};
    #[pymodule_export]
    use crate::mixture::{
        check_unit_rows, merge_directions, spherical_seeds, vmf_mixture_labels,
        vmf_mixture_log_prob, vmf_mixture_responsibilities, vmf_mixture_step,
    };
    #[pymodule_export]
    use crate::sketch::{
        sketch_apply, sketch_apply_transpose, sketch_gaussian_columns, sketch_normal_equations,
        sketch_residual, sketch_sparse_columns, sketch_srht_rows, sketch_srht_signs,
        sketch_walsh_hadamard,
    };
    #[pymodule_export]
    use crate::special::{bessel, bessel_at, bessel_ratio_inverse, special_tables};

    #[pymodule_export]
    use crate::bridge::{
        bridge_drift, bridge_drift_at_times, bridge_log_density, bridge_log_density_slopes,
        bridge_log_sums, bridge_log_sums_at, bridge_log_sums_at_times, bridge_log_weights,
        bridge_pass, bridge_sample, brownian_bridges,
    };

    #[pymodule_export]
    use crate::sketching::{
        bernoulli_rows, column_maxima, exact_sensitivities, lewis_step, pair_power_sums,
        pivotal_rows, power_sums, row_probabilities, row_uniforms, rows_gram, rows_leaf,
        rows_squared_norms, water_level,
    };

    #[pymodule_export]
    use crate::transport::{
        sinkhorn, sinkhorn_batch, sinkhorn_symmetric, transport_apply, transport_log_kernel_sums,
        transport_plan, transport_position_gradient, transport_rounded_value,
        transport_solve_adjoint, transport_sparse_plan, transport_sums,
    };

    /// Number of threads that the next kernel will use.
    #[pyfunction]
    fn num_threads() -> usize {
        crate::pool::num_threads()
    }

    /// Sets the number of threads; 0 returns to one a processor.
    #[pyfunction]
    fn set_num_threads(n: usize) {
        crate::pool::set_num_threads(n);
    }
}
