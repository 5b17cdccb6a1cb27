//! Eigenbases of the components of a light Schrödinger bridge, and products of tiles with them.

use ndarray::{Array1, ArrayView1, ArrayView3, Axis};

use super::tiles::{LANES, Tile};
use crate::Error;

/// Vectors of a basis that a tile is multiplied by together: their sums stay in registers.
const TOGETHER: usize = 4;

/// The eigenvectors of the components' scales; none where they are the axes.
pub(super) struct Axes {
    dim: usize,
    /// For each component and a few eigenvectors, their entries, a coordinate after the other.
    columns: Vec<[f64; TOGETHER]>,
    /// For each component and a few coordinates, those of an eigenvector after the other.
    rows: Vec<[f64; TOGETHER]>,
}

impl Axes {
    /// The bases of `k` components, shape (k, dim, dim), one vector a column; made to turn vectors back
    /// as well only where `both_ways`.
    pub(super) fn new(
        bases: Option<ArrayView3<'_, f64>>,
        k: usize,
        dim: usize,
        both_ways: bool,
    ) -> Result<Self, Error> {
        let Some(bases) = bases else {
            return Ok(Self { dim, columns: Vec::new(), rows: Vec::new() });
        };
        if bases.dim() != (k, dim, dim) {
            return Err(Error::Shape {
                name: "bases",
                expected: format!("({k}, {dim}, {dim})"),
                got: bases.shape().to_vec(),
            });
        }
        let rows = if both_ways { blocks(bases.permuted_axes([0, 2, 1])) } else { Vec::new() };
        Ok(Self { dim, columns: blocks(bases), rows })
    }

    /// Whether no component has axes of its own.
    #[inline(always)]
    pub(super) fn are_those_of_space(&self) -> bool {
        self.columns.is_empty()
    }

    /// The vectors `from` in the eigenbasis of component `k`, which are written to `to` if need be.
    #[inline(always)]
    pub(super) fn turn<'a>(&self, k: usize, from: &'a [Tile], to: &'a mut [Tile]) -> &'a [Tile] {
        if self.are_those_of_space() {
            return from;
        }
        let own = self.own(&self.columns, k);
        for (to, block) in to.chunks_mut(TOGETHER).zip(own.chunks_exact(self.dim)) {
            to.copy_from_slice(&product(block, from)[..to.len()]);
        }
        to
    }

    /// Replaces `to` by `kept` times itself and `share` times the vectors `from`, which are given in the
    /// eigenbasis of component `k`.
    #[inline(always)]
    pub(super) fn add_back(
        &self,
        k: usize,
        (kept, share): (Tile, Tile),
        from: &[Tile],
        to: &mut [Tile],
    ) {
        if self.are_those_of_space() {
            for (to, from) in to.iter_mut().zip(from) {
                *to = mixed(*to, kept, *from, share);
            }
            return;
        }
        let own = self.own(&self.rows, k);
        for (to, block) in to.chunks_mut(TOGETHER).zip(own.chunks_exact(self.dim)) {
            for (to, sum) in to.iter_mut().zip(&product(block, from)) {
                *to = mixed(*to, kept, *sum, share);
            }
        }
    }

    #[inline(always)]
    fn own<'a>(&self, blocks: &'a [[f64; TOGETHER]], k: usize) -> &'a [[f64; TOGETHER]] {
        let size = self.dim.div_ceil(TOGETHER) * self.dim;
        &blocks[k * size..(k + 1) * size]
    }
}

/// A vector in the eigenbasis of component `k`.
pub(super) fn turned(
    bases: Option<ArrayView3<'_, f64>>,
    k: usize,
    vector: ArrayView1<'_, f64>,
) -> Array1<f64> {
    match bases {
        Some(bases) => vector.dot(&bases.index_axis(Axis(0), k)),
        None => vector.to_owned(),
    }
}

/// The columns of matrices, a few together.
fn blocks(matrices: ArrayView3<'_, f64>) -> Vec<[f64; TOGETHER]> {
    let (k, dim, _) = matrices.dim();
    let mut blocks = Vec::with_capacity(k * dim.div_ceil(TOGETHER) * dim);
    for matrix in matrices.outer_iter() {
        for columns in matrix.axis_chunks_iter(Axis(1), TOGETHER) {
            for row in columns.rows() {
                let mut entries = [0.0; TOGETHER];
                entries.iter_mut().zip(row).for_each(|(entry, x)| *entry = *x);
                blocks.push(entries);
            }
        }
    }
    blocks
}

/// The products of a tile with a few vectors.
#[inline(always)]
fn product(block: &[[f64; TOGETHER]], tiles: &[Tile]) -> [Tile; TOGETHER] {
    // Not an array of sums: the compiler would keep that in memory.
    let [mut a, mut b, mut c, mut d] = [[0.0; LANES]; TOGETHER];
    for (x, entries) in tiles.iter().zip(block) {
        for i in 0..LANES {
            a[i] = entries[0].mul_add(x[i], a[i]);
            b[i] = entries[1].mul_add(x[i], b[i]);
            c[i] = entries[2].mul_add(x[i], c[i]);
            d[i] = entries[3].mul_add(x[i], d[i]);
        }
    }
    [a, b, c, d]
}

/// `kept a + share b`
#[inline(always)]
fn mixed(a: Tile, kept: Tile, b: Tile, share: Tile) -> Tile {
    let mut out = [0.0; LANES];
    for i in 0..LANES {
        out[i] = a[i].mul_add(kept[i], share[i] * b[i]);
    }
    out
}
