//! Encoded rows: of each what it uses, or all of it where logits that it does not use are variables as well.

use super::Encoder;
use crate::wire::wired;
use ndarray::Array2;

/// Encoded rows, laid end to end.
#[derive(Clone, Debug)]
pub struct Encoding {
    pub supports: Vec<Vec<u32>>,
    /// Of every row's support.
    pub gates: Vec<f64>,
    /// Of all atoms of every row, or of its support.
    pub logits: Vec<f64>,
    /// Stored points on these atoms.
    pub points: Vec<f64>,
    pub objective: Vec<f64>,
    pub converged: Vec<bool>,
    pub(super) whole: bool,
}

wired!(Encoding { supports, gates, logits, points, objective, converged, whole });

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct EncodedRow<'a> {
    pub support: &'a [u32],
    /// Of the support.
    pub gates: &'a [f64],
    pub logits: &'a [f64],
    pub points: &'a [f64],
    whole: bool,
}

impl Encoding {
    /// Of no rows.
    pub(super) fn new(whole: bool) -> Self {
        Self {
            supports: Vec::new(),
            gates: Vec::new(),
            logits: Vec::new(),
            points: Vec::new(),
            objective: Vec::new(),
            converged: Vec::new(),
            whole,
        }
    }

    /// Puts further rows under these.
    pub(super) fn append(&mut self, other: Self) {
        self.supports.extend(other.supports);
        self.gates.extend(other.gates);
        self.logits.extend(other.logits);
        self.points.extend(other.points);
        self.objective.extend(other.objective);
        self.converged.extend(other.converged);
    }

    /// The rows in order; points of atom k have `ambients[k]` entries.
    pub fn rows<'a>(&'a self, ambients: &'a [usize]) -> impl Iterator<Item = EncodedRow<'a>> {
        let (mut gates, mut logits, mut points) = (&self.gates[..], &self.logits[..], &self.points[..]);
        let mut next = move |support: &'a [u32]| {
            let sizes = match self.whole {
                true => (ambients.len(), ambients.iter().sum()),
                false => (support.len(), support.iter().map(|&k| ambients[k as usize]).sum()),
            };
            EncodedRow {
                support,
                gates: take(&mut gates, support.len()),
                logits: take(&mut logits, sizes.0),
                points: take(&mut points, sizes.1),
                whole: self.whole,
            }
        };
        self.supports.iter().map(move |support| next(support))
    }
}

impl<'a> EncodedRow<'a> {
    /// The atoms of which it has a logit and a point, each with its point.
    pub fn points(&self, ambients: &'a [usize]) -> impl Iterator<Item = (usize, &'a [f64])> {
        let (whole, support, mut points) = (self.whole, self.support, self.points);
        let count = if whole { ambients.len() } else { support.len() };
        (0..count).map(move |at| {
            let k = if whole { at } else { support[at] as usize };
            (k, take(&mut points, ambients[k]))
        })
    }
}

/// Takes entries from the front of some numbers.
fn take<'a>(from: &mut &'a [f64], len: usize) -> &'a [f64] {
    let (own, rest) = from.split_at(len);
    *from = rest;
    own
}

impl Encoder {
    /// Gates m x K, coordinates of every atom m x ambient, and logits m x K of encoded rows. What a row does not have of an atom
    /// is at its rest.
    pub fn dense(&self, encoded: &Encoding) -> (Array2<f64>, Vec<Array2<f64>>, Array2<f64>) {
        let (m, n_atoms) = (encoded.supports.len(), self.rows.atoms.len());
        let ambients: Vec<usize> = self.rows.atoms.iter().map(|atom| atom.ambient()).collect();
        let mut gates = Array2::zeros((m, n_atoms));
        let mut logits = Array2::zeros((m, n_atoms));
        let mut coords: Vec<Array2<f64>> = Vec::with_capacity(n_atoms);
        for atom in &self.rows.atoms {
            let mut origin = vec![0.0; atom.ambient()];
            atom.origin(&mut origin);
            coords.push(Array2::from_shape_fn((m, atom.ambient()), |(_, at)| origin[at]));
        }
        for (i, row) in encoded.rows(&ambients).enumerate() {
            row.support.iter().zip(row.gates).for_each(|(&k, a)| gates[[i, k as usize]] = *a);
            logits.row_mut(i).iter_mut().zip(&self.rows.rest).for_each(|(l, rest)| *l = *rest);
            for ((k, point), logit) in row.points(&ambients).zip(row.logits) {
                logits[[i, k]] = *logit;
                coords[k].row_mut(i).iter_mut().zip(point).for_each(|(t, own)| *t = *own);
            }
        }
        (gates, coords, logits)
    }
}
