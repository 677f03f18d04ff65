//! The exact complement split, group by group.
//!
//! Atoms that no row uses together, not even by way of others, do not meet in the Schur complement: it is block diagonal over
//! groups of atoms. Within a group, local Jacobians `L_i = D_i B` lie in the span of the group's decoder rows. In an
//! orthonormal basis of that span (p x r) the border of the arrow has M r variables instead of M p; in its complement the
//! Schur complement is `G_lambda` on each of the p - r remaining channels, exactly.
//!
//! All groups have the same number of channels r, that of the group which needs most: more than the span is as exact. Channel c
//! is another direction in every group, so stacked border vectors in the frame (M x r) hold each row in the channels of its
//! own group. A row of the data uses atoms of one group only.

use crate::linalg::{product, row_space, Op};
use crate::problem::Problem;
use crate::state::State;
use ndarray::{s, Array2, ArrayView2, Axis};

/// Output channels in which the arrow is eliminated.
#[derive(Clone, Debug)]
pub struct Frame {
    groups: Vec<Group>,
    /// Group of each atom.
    group_of: Vec<usize>,
    /// Decoders in those channels, M x r.
    pub reduced: Array2<f64>,
    /// Number of channels left over.
    pub complement: usize,
}

/// Atoms that are eliminated together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its stacked rows, in order.
    pub rows: Vec<usize>,
    /// p x r, `None` for all channels as they are.
    basis: Option<Array2<f64>>,
}

impl Group {
    /// The rows of this group among stacked ones.
    pub fn select(&self, stacked: &Array2<f64>) -> Array2<f64> {
        stacked.select(Axis(0), &self.rows)
    }

    /// Puts them back.
    pub fn put(&self, own: &Array2<f64>, stacked: &mut Array2<f64>) {
        self.rows.iter().zip(own.rows()).for_each(|(&a, row)| stacked.row_mut(a).assign(&row));
    }

    /// Where some of its stacked rows are within the group.
    pub fn places(&self, rows: &[usize]) -> Vec<usize> {
        rows.iter().map(|a| self.rows.binary_search(a).expect("rows of the group")).collect()
    }

    /// Directions of the output space (rows x p) in the group's channels (rows x r).
    pub fn inside(&self, directions: ArrayView2<'_, f64>) -> Array2<f64> {
        match &self.basis {
            None => directions.to_owned(),
            Some(basis) => product((directions, Op::Plain), (basis.view(), Op::Plain)),
        }
    }
}

impl Frame {
    /// All channels, all atoms together.
    pub fn full(problem: &Problem, decoders: &Array2<f64>) -> Self {
        let all = Group { rows: (0..problem.width()).collect(), basis: None };
        let group_of = vec![0; problem.n_atoms()];
        Self { groups: vec![all], group_of, reduced: decoders.clone(), complement: 0 }
    }

    /// The span of the decoder's rows; of a decoder with a frame of its own, all that it may move in. `grouped` takes groups of
    /// atoms apart.
    pub fn span(problem: &Problem, state: &State, grouped: bool) -> Self {
        let p = problem.n_outputs();
        if problem.metric().is_some() {
            // a metric mixes all channels
            return Self::full(problem, &state.decoders);
        }
        let atoms: Vec<Vec<usize>> = match grouped && state.frames.is_empty() {
            true => state.layout_of_rows().groups(),
            false => vec![(0..problem.n_atoms()).collect()],
        };
        let spans: Vec<Array2<f64>> = atoms.iter().map(|group| span(problem, state, group)).collect();
        let rank = spans.iter().map(Array2::ncols).max().unwrap_or(0).max(1);
        let mut group_of = vec![0; problem.n_atoms()];
        let mut reduced = Array2::zeros((problem.width(), rank));
        let mut groups = Vec::with_capacity(atoms.len());
        for (index, (group, span)) in atoms.iter().zip(spans).enumerate() {
            group.iter().for_each(|&k| group_of[k] = index);
            let rows: Vec<usize> = group.iter().flat_map(|&k| problem.rows_of(k)).collect();
            let basis = (rank < p).then(|| completed(span, rank));
            let own = Group { rows, basis };
            let inside = own.inside(own.select(&state.decoders).view());
            own.rows.iter().zip(inside.rows()).for_each(|(&a, row)| reduced.row_mut(a).assign(&row));
            groups.push(own);
        }
        Self { groups, group_of, reduced, complement: p - rank }
    }

    /// Whether its channels are all of the output's, as they are.
    pub fn is_full(&self) -> bool {
        matches!(&self.groups[..], [Group { basis: None, .. }])
    }

    /// Number of channels r.
    pub fn rank(&self) -> usize {
        self.reduced.ncols()
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Group of an atom.
    pub fn group_of(&self, atom: usize) -> usize {
        self.group_of[atom]
    }

    /// Directions of the output space (p x k) in the channels of an atom (r x k).
    pub fn channels_of(&self, atom: usize, directions: &Array2<f64>) -> Array2<f64> {
        match &self.groups[self.group_of[atom]].basis {
            None => directions.clone(),
            Some(basis) => product((basis.view(), Op::Transposed), (directions.view(), Op::Plain)),
        }
    }

    /// Directions of the output space (rows x p), each in the channels of the atoms that its row uses (rows x r); zero where it
    /// uses none.
    pub fn inside(&self, supports: &[&[u32]], directions: &Array2<f64>) -> Array2<f64> {
        let mut out = Array2::zeros((directions.nrows(), self.rank()));
        for (index, group) in self.groups.iter().enumerate() {
            let used = |support: &[u32]| support.first().is_some_and(|&k| self.group_of[k as usize] == index);
            let rows: Vec<usize> = (0..supports.len()).filter(|&i| used(supports[i])).collect();
            if rows.is_empty() {
                continue;
            }
            let own = group.inside(directions.select(Axis(0), &rows).view());
            rows.iter().zip(own.rows()).for_each(|(&i, row)| out.row_mut(i).assign(&row));
        }
        out
    }

    /// Splits stacked border columns (M x p) into their part in the frame (M x r) and the rest (M x p).
    pub fn split(&self, border: &Array2<f64>) -> (Array2<f64>, Option<Array2<f64>>) {
        if self.is_full() {
            return (border.clone(), None);
        }
        let mut inside = Array2::zeros((border.nrows(), self.rank()));
        let mut rest = (self.complement > 0).then(|| border.clone());
        for group in &self.groups {
            let own = group.inside(group.select(border).view());
            let back = group.basis.as_ref().map(|b| product((own.view(), Op::Plain), (b.view(), Op::Transposed)));
            for (i, &a) in group.rows.iter().enumerate() {
                inside.row_mut(a).assign(&own.row(i));
                if let (Some(rest), Some(back)) = (&mut rest, &back) {
                    let mut row = rest.row_mut(a);
                    row -= &back.row(i);
                }
            }
        }
        (inside, rest)
    }

    /// Back from the frame to all channels.
    pub fn lift(&self, inside: &Array2<f64>) -> Array2<f64> {
        if self.is_full() {
            return inside.clone();
        }
        let mut border = Array2::zeros((inside.nrows(), self.rank() + self.complement));
        for group in &self.groups {
            let own = group.select(inside);
            let own = match &group.basis {
                None => own,
                Some(basis) => product((own.view(), Op::Plain), (basis.view(), Op::Transposed)),
            };
            group.rows.iter().zip(own.rows()).for_each(|(&a, row)| border.row_mut(a).assign(&row));
        }
        border
    }
}

/// An orthonormal basis (p x r) of what some atoms' decoders may span.
fn span(problem: &Problem, state: &State, atoms: &[usize]) -> Array2<f64> {
    let mut rows = Array2::zeros((0, state.decoders.ncols()));
    let (framed, full): (Vec<usize>, Vec<usize>) = atoms.iter().partition(|&&k| state.frames.of(k).is_some());
    for k in framed {
        let frame = state.frames.of(k).expect("framed atoms have one");
        rows.append(Axis(0), frame.t()).expect("as many columns as outputs");
    }
    for k in full {
        rows.append(Axis(0), state.decoder(problem, k)).expect("as many columns as outputs");
    }
    row_space(rows.view())
}

/// A basis with orthonormal columns added until it has `rank` of them.
fn completed(basis: Array2<f64>, rank: usize) -> Array2<f64> {
    let (p, own) = basis.dim();
    let mut out = Array2::zeros((p, rank));
    out.slice_mut(s![.., ..own]).assign(&basis);
    for column in own..rank {
        // the unit vector that has most outside: at least (p - column)/p of its square
        let covered = |c: usize| out.slice(s![c, ..column]).mapv(|v| v * v).sum();
        let least = (0..p).min_by(|&a, &b| covered(a).total_cmp(&covered(b))).expect("fewer columns than channels");
        let mut unit = ndarray::Array1::<f64>::zeros(p);
        unit[least] = 1.0;
        for _ in 0..2 {
            let found = out.slice(s![.., ..column]);
            unit = &unit - &found.dot(&found.t().dot(&unit));
        }
        unit /= unit.dot(&unit).sqrt();
        out.column_mut(column).assign(&unit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completed_basis_is_orthonormal_and_keeps_its_columns() {
        let rows = Array2::from_shape_fn((2, 6), |(i, c)| ((i * 6 + c) as f64 * 0.7).sin());
        let basis = row_space(rows.view());
        let out = completed(basis.clone(), 5);
        let gram = out.t().dot(&out) - Array2::<f64>::eye(5);
        assert!(gram.iter().all(|v| v.abs() < 1e-14));
        assert_eq!(out.slice(s![.., ..2]), basis);
    }
}
