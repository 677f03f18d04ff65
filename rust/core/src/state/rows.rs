//! Logits and points of rows, laid end to end.
//!
//! Where what a row does not use is no variable, a row has those of its support: so that a dictionary of a thousand atoms costs
//! a row what the few that it uses take. Otherwise it has those of all atoms.

use crate::gates::RowLogits;
use crate::layout::SaeRowLayout;
use ndarray::Array2;
use std::ops::Range;
use std::sync::Arc;

/// Where rows have their logits and points.
#[derive(Debug)]
struct Places {
    layout: SaeRowLayout,
    /// Every atom of the dictionary.
    all: Vec<u32>,
    /// Where points begin: of every active atom among all rows, or of every atom within a row.
    starts: Vec<usize>,
}

impl Places {
    fn new(layout: SaeRowLayout, ambients: &[usize]) -> Self {
        let all: Vec<u32> = (0..ambients.len() as u32).collect();
        let mut starts = vec![0];
        let mut add = |atoms: &[u32]| {
            for &k in atoms {
                starts.push(starts[starts.len() - 1] + ambients[k as usize]);
            }
        };
        match layout.is_compact() {
            true => (0..layout.n_rows()).for_each(|row| add(layout.active_atoms(row))),
            false => add(&all),
        }
        starts.shrink_to_fit();
        Self { layout, all, starts }
    }

    fn atoms(&self, row: usize) -> &[u32] {
        match self.layout.is_compact() {
            true => self.layout.active_atoms(row),
            false => &self.all,
        }
    }

    /// Where a row's logits lie.
    fn logits(&self, row: usize) -> Range<usize> {
        match self.layout.is_compact() {
            true => self.layout.entries(row),
            false => row * self.all.len()..(row + 1) * self.all.len(),
        }
    }

    /// Where a row's points of some of its atoms lie, by their positions.
    fn points(&self, row: usize, atoms: Range<usize>) -> Range<usize> {
        let (first, before) = match self.layout.is_compact() {
            true => (self.layout.entries(row).start, 0),
            false => (0, row * self.starts[self.all.len()]),
        };
        before + self.starts[first + atoms.start]..before + self.starts[first + atoms.end]
    }

    /// The position of an atom among those of a row.
    fn place(&self, row: usize, atom: usize) -> Option<usize> {
        match self.layout.is_compact() {
            true => self.layout.active_atoms(row).binary_search(&(atom as u32)).ok(),
            false => Some(atom),
        }
    }

    fn len(&self) -> (usize, usize) {
        match (self.layout.is_compact(), self.layout.n_rows()) {
            (true, _) => (self.layout.n_active(), self.starts[self.layout.n_active()]),
            (false, n) => (n * self.all.len(), n * self.starts[self.all.len()]),
        }
    }
}

/// Logits and points of rows with the atoms that they use. What each row has is told by its layout.
#[derive(Clone, Debug)]
pub struct RowVariables {
    places: Arc<Places>,
    logits: Vec<f64>,
    points: Vec<f64>,
}

impl RowVariables {
    /// From what the rows have, one after the other; points of atom k have `ambients[k]` entries.
    pub fn new(layout: SaeRowLayout, ambients: &[usize], logits: Vec<f64>, points: Vec<f64>) -> Self {
        let places = Places::new(layout, ambients);
        assert_eq!(places.len(), (logits.len(), points.len()), "logits and points are those of the layout");
        Self { places: Arc::new(places), logits, points }
    }

    /// From dense tables of which the rows have their part: logits n x K, and of every atom points n x ambient.
    pub fn from_dense(layout: SaeRowLayout, logits: &Array2<f64>, points: &[Array2<f64>]) -> Self {
        let ambients: Vec<usize> = points.iter().map(Array2::ncols).collect();
        let places = Places::new(layout, &ambients);
        let (n_logits, n_points) = places.len();
        let (mut own, mut at) = (Vec::with_capacity(n_logits), Vec::with_capacity(n_points));
        for row in 0..places.layout.n_rows() {
            for &k in places.atoms(row) {
                own.push(logits[[row, k as usize]]);
                at.extend(points[k as usize].row(row));
            }
        }
        Self { places: Arc::new(places), logits: own, points: at }
    }

    pub fn layout(&self) -> &SaeRowLayout {
        &self.places.layout
    }

    /// The atoms of which a row has a logit and a point, sorted.
    pub fn atoms(&self, row: usize) -> &[u32] {
        self.places.atoms(row)
    }

    pub fn logits_of(&self, row: usize) -> RowLogits<'_> {
        let values = &self.logits[self.places.logits(row)];
        match self.layout().is_compact() {
            true => RowLogits::of(self.atoms(row), values),
            false => values.into(),
        }
    }

    /// One of them, as it can be changed.
    pub(super) fn logit_mut(&mut self, row: usize, atom: usize) -> &mut f64 {
        let place = self.places.place(row, atom).expect("an atom whose logit the row has");
        let at = self.places.logits(row).start + place;
        &mut self.logits[at]
    }

    /// Where the row lies on an atom.
    pub fn point(&self, row: usize, atom: usize) -> &[f64] {
        let place = self.places.place(row, atom).expect("an atom on which the row has a point");
        &self.points[self.places.points(row, place..place + 1)]
    }

    pub(super) fn point_mut(&mut self, row: usize, atom: usize) -> &mut [f64] {
        let place = self.places.place(row, atom).expect("an atom on which the row has a point");
        let at = self.places.points(row, place..place + 1);
        &mut self.points[at]
    }

    /// Logits and points of one row, as they lie.
    pub fn row(&self, row: usize) -> (&[f64], &[f64]) {
        let points = self.places.points(row, 0..self.atoms(row).len());
        (&self.logits[self.places.logits(row)], &self.points[points])
    }

    pub(super) fn row_mut(&mut self, row: usize) -> (&mut [f64], &mut [f64]) {
        let points = self.places.points(row, 0..self.atoms(row).len());
        (&mut self.logits[self.places.logits(row)], &mut self.points[points])
    }

    /// All numbers.
    pub fn values(&self) -> impl Iterator<Item = &f64> {
        self.logits.iter().chain(&self.points)
    }

    /// Logits of all atoms, n x K; `rest` are those of the atoms that a row does not have.
    pub fn dense_logits(&self, rest: &[f64]) -> Array2<f64> {
        let n = self.layout().n_rows();
        let mut out = Array2::zeros((n, rest.len()));
        for (row, mut own) in out.rows_mut().into_iter().enumerate() {
            own.iter_mut().zip(rest).for_each(|(o, l)| *o = *l);
            self.logits_of(row).iter().for_each(|(k, l)| own[k] = l);
        }
        out
    }

    /// Points of all rows on one atom, n x ambient; `origin` for rows that have none.
    pub fn dense_points(&self, atom: usize, origin: &[f64]) -> Array2<f64> {
        let n = self.layout().n_rows();
        let mut out = Array2::zeros((n, origin.len()));
        for (row, mut own) in out.rows_mut().into_iter().enumerate() {
            let point = match self.places.place(row, atom) {
                Some(place) => &self.points[self.places.points(row, place..place + 1)],
                None => origin,
            };
            own.iter_mut().zip(point).for_each(|(o, t)| *o = *t);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn tables() -> (Array2<f64>, Vec<Array2<f64>>) {
        let logits = array![[0.1, 0.2, 0.3], [1.1, 1.2, 1.3], [2.1, 2.2, 2.3]];
        let point = |row: usize, k: usize| 10.0 * row as f64 + k as f64;
        let points = [1, 2, 1].into_iter().enumerate();
        (logits, points.map(|(k, width)| Array2::from_shape_fn((3, width), |(row, _)| point(row, k))).collect())
    }

    #[test]
    fn rows_have_what_they_use() {
        let (logits, points) = tables();
        let lists = vec![vec![0, 2], vec![], vec![1]];
        let layout = SaeRowLayout::with_open_logits(lists.into_iter(), vec![1, 2, 1]).unwrap();
        let rows = RowVariables::from_dense(layout, &logits, &points);
        assert_eq!(rows.row(0), (&[0.1, 0.3][..], &[0.0, 2.0][..]));
        assert_eq!((rows.row(1).0.len(), rows.point(2, 1)), (0, &[21.0, 21.0][..]));
        assert_eq!(rows.values().count(), 3 + 4);
        let dense = array![[0.1, -2.0, 0.3], [-1.0, -2.0, -3.0], [-1.0, 2.2, -3.0]];
        assert_eq!(rows.dense_logits(&[-1.0, -2.0, -3.0]), dense);
        assert_eq!(rows.dense_points(1, &[7.0, 8.0]), array![[7.0, 8.0], [7.0, 8.0], [21.0, 21.0]]);
    }

    #[test]
    fn rows_have_everything_where_all_logits_are_free() {
        let (logits, points) = tables();
        let lists = vec![vec![0, 2], vec![], vec![1]];
        let layout = SaeRowLayout::with_independent_logits(lists.into_iter(), 3, vec![1, 2, 1]).unwrap();
        let rows = RowVariables::from_dense(layout, &logits, &points);
        assert_eq!((rows.dense_logits(&[0.0; 3]), rows.atoms(1)), (logits, &[0, 1, 2][..]));
        assert_eq!((rows.point(1, 2), rows.dense_points(1, &[0.0; 2])), (&[12.0][..], points[1].clone()));
    }
}
