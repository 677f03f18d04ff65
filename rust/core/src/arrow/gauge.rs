//! Gauge orbits: motions of coordinates and decoders that leave every fit unchanged.
//!
//! The data part of H annihilates a gauge tangent G, so along it H is flat but for the decoder prior. `U` holds the
//! decoder rows of G, scaled to the size of H; `H + UU'` touches the border alone, keeps the arrow's shape and has no
//! flat direction left.

use super::frame::Group;
use crate::gram::Gram;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array2};

/// One generator at one state.
#[derive(Clone, Debug)]
pub struct GaugeColumn {
    pub atom: usize,
    /// Which of the atom's generators.
    pub generator: usize,
    /// The action on the atom's basis, M_k x M_k: the decoder moves with `-basis_map * B`.
    pub basis_map: Array2<f64>,
    /// Decoder rows of the tangent, M_k x p.
    pub border: Array2<f64>,
    /// What U scales them by.
    pub scale: f64,
}

impl GaugeColumn {
    /// Inner product of the decoder rows of two tangents; those of different atoms have none in common.
    pub fn dot(&self, other: &Self) -> f64 {
        if self.atom != other.atom {
            return 0.0;
        }
        self.border.iter().zip(&other.border).map(|(a, b)| a * b).sum()
    }

    /// Inner product of U's column with stacked decoders.
    pub fn dot_border(&self, problem: &Problem, border: &Array2<f64>) -> f64 {
        let rows = border.slice(s![problem.rows_of(self.atom), ..]);
        self.scale * self.border.iter().zip(rows).map(|(u, v)| u * v).sum::<f64>()
    }

    /// Adds a multiple of U's column to stacked decoders.
    pub fn add_border(&self, problem: &Problem, factor: f64, border: &mut Array2<f64>) {
        let mut rows = border.slice_mut(s![problem.rows_of(self.atom), ..]);
        rows.scaled_add(factor * self.scale, &self.border);
    }
}

/// Part of a decoder's square norm below which a motion has no tangent to it: the square of that would be no normal number,
/// and curvatures along the orbit are squares of tangents.
const STILL: f64 = 1e-154;

/// All generators of a dictionary.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    pub columns: Vec<GaugeColumn>,
}

impl Gauge {
    /// Generators of every atom that no precision of an axis pins and which some row uses; an unused atom has no coordinate
    /// to move. `None` when a motion leaves an atom as it is, such as one that has collapsed to a point or is even about an
    /// axis: its orbit has no tangent there, and V rises without bound on the way.
    pub fn new(problem: &Problem, state: &State, rho: &SaeManifoldRho, gram: &Gram) -> Option<Self> {
        let mut columns = Vec::new();
        let used = state.used(problem);
        for (k, atom) in problem.atoms().iter().enumerate() {
            if !rho.log_ard[k].is_empty() || !used[k] {
                continue;
            }
            let stiffness = gram.own(k).diag().mean().unwrap_or(1.0);
            let square = |a: &Array2<f64>| a.iter().map(|v| v * v).sum::<f64>();
            let decoder = state.decoder(problem, k).to_owned();
            for (generator, basis_map) in atom.generators().into_iter().enumerate() {
                let border = -basis_map.dot(&decoder);
                let norm_squared = square(&border);
                let scale = (stiffness / norm_squared).sqrt();
                if !(scale.is_finite() && scale > 0.0 && norm_squared > STILL * square(&decoder)) {
                    return None;
                }
                columns.push(GaugeColumn { atom: k, generator, basis_map, border, scale });
            }
        }
        Some(Self { columns })
    }

    /// U's columns of atoms whose decoder rows are among some of a group's, in the frame's channels, each with its place there.
    pub(super) fn within(&self, problem: &Problem, group: &Group, rows: &[usize]) -> Vec<(usize, Array2<f64>)> {
        let columns = self.columns.iter().filter_map(|column| {
            let place = rows.binary_search(&problem.rows_of(column.atom).start).ok()?;
            Some((place, group.inside((&column.border * column.scale).view())))
        });
        columns.collect()
    }

    /// `UU' x` added to stacked decoders `out`.
    pub fn apply(&self, problem: &Problem, x: &Array2<f64>, out: &mut Array2<f64>) {
        for column in &self.columns {
            column.add_border(problem, column.dot_border(problem, x), out);
        }
    }
}
