//! Which variables a row really has.

use crate::errors::ShapeError;
use ndarray::ArrayView2;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::OnceLock;

/// How a row's logits are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logits {
    /// One position per active atom.
    Compact,
    /// All free logits of the row, active or not.
    Dense,
}

/// The variables of every row: logits first, then the coordinates of its active atoms.
///
/// Stored flat, so that a layout of a million rows costs a few machine words a row.
#[derive(Clone, Debug)]
pub struct SaeRowLayout {
    logits: Logits,
    /// The atoms whose logits are free, where each row has all of them.
    free: Vec<u32>,
    coord_dims: Vec<usize>,
    coord_offsets_full: Vec<usize>,
    /// Row i's active atoms are `atoms[row_start[i]..row_start[i + 1]]`, sorted.
    row_start: Vec<usize>,
    atoms: Vec<u32>,
    /// Where each active atom's coordinates begin in its row's block.
    starts: Vec<u32>,
    /// Where each row's block begins when all blocks are laid end to end.
    block_start: Vec<usize>,
    /// What the supports say of atoms, found when it is first asked for.
    by_atom: OnceLock<ByAtom>,
}

/// The rows that use each atom, and the atoms that rows use together.
#[derive(Clone, Debug)]
struct ByAtom {
    /// Atom k's rows are `rows[start[k]..start[k + 1]]`, in order.
    start: Vec<usize>,
    rows: Vec<u32>,
    /// Where the atom's coordinates begin in each of them, when all blocks are laid end to end.
    coords: Vec<usize>,
    /// Atoms before it that some row uses with it, in order.
    met: Vec<Vec<u32>>,
}

impl PartialEq for SaeRowLayout {
    /// Whatever has been asked of either.
    fn eq(&self, other: &Self) -> bool {
        // where variables begin follows from these
        self.logits == other.logits
            && self.coord_dims == other.coord_dims
            && self.coord_offsets_full == other.coord_offsets_full
            && self.row_start == other.row_start
            && self.atoms == other.atoms
    }
}

impl SaeRowLayout {
    fn build(
        (logits, free): (Logits, usize),
        may_be_empty: bool,
        rows: impl Iterator<Item = Vec<u32>>,
        coord_dims: Vec<usize>,
        coord_offsets_full: Vec<usize>,
    ) -> Result<Self, ShapeError> {
        let n_atoms = coord_dims.len();
        let mut out = Self {
            logits,
            free: (0..free as u32).collect(),
            coord_dims,
            coord_offsets_full,
            row_start: vec![0],
            atoms: Vec::new(),
            starts: Vec::new(),
            block_start: vec![0],
            by_atom: OnceLock::new(),
        };
        for (row, mut active) in rows.enumerate() {
            active.sort_unstable();
            active.dedup();
            if active.is_empty() && !may_be_empty {
                return Err(ShapeError::EmptySupport { row });
            }
            if let Some(&atom) = active.iter().find(|&&k| k as usize >= n_atoms) {
                return Err(ShapeError::AtomOutOfRange { atom: atom as usize, row, n_atoms });
            }
            let mut position = match logits {
                Logits::Compact => active.len(),
                Logits::Dense => free,
            };
            for &k in &active {
                out.starts.push(position as u32);
                position += out.coord_dims[k as usize];
            }
            out.atoms.extend(active);
            out.row_start.push(out.atoms.len());
            out.block_start.push(out.block_start[row] + position);
        }
        Ok(out)
    }

    /// Coordinates of all atoms, one after the other, behind `n_logits` logits.
    pub fn default_offsets(n_logits: usize, coord_dims: &[usize]) -> Vec<usize> {
        coord_dims
            .iter()
            .scan(n_logits, |next, d| {
                let at = *next;
                *next += d;
                Some(at)
            })
            .collect()
    }

    /// A layout from the active atoms of each row. `coord_offsets_full[k]` is where atom k's coordinates begin in a
    /// full row.
    pub fn from_active_atoms(
        lists: Vec<Vec<u32>>,
        coord_dims: Vec<usize>,
        coord_offsets_full: Vec<usize>,
    ) -> Result<Self, ShapeError> {
        if coord_dims.len() != coord_offsets_full.len() {
            return Err(ShapeError::shape("coord_offsets_full", &[coord_offsets_full.len()], &[coord_dims.len()]));
        }
        Self::build((Logits::Compact, 0), false, lists.into_iter(), coord_dims, coord_offsets_full)
    }

    /// As [`Self::from_active_atoms`], with all `free` logits of each row kept whichever atoms are active.
    pub fn with_dense_logits(
        lists: impl Iterator<Item = Vec<u32>>,
        free: usize,
        coord_dims: Vec<usize>,
    ) -> Result<Self, ShapeError> {
        let offsets = Self::default_offsets(free, &coord_dims);
        Self::build((Logits::Dense, free), false, lists, coord_dims, offsets)
    }

    /// As [`Self::with_dense_logits`], where a row may also use no atom at all.
    pub fn with_independent_logits(
        lists: impl Iterator<Item = Vec<u32>>,
        free: usize,
        coord_dims: Vec<usize>,
    ) -> Result<Self, ShapeError> {
        let offsets = Self::default_offsets(free, &coord_dims);
        Self::build((Logits::Dense, free), true, lists, coord_dims, offsets)
    }

    /// As [`Self::from_active_atoms`], where a row may also use no atom at all.
    pub fn with_open_logits(lists: impl Iterator<Item = Vec<u32>>, coord_dims: Vec<usize>) -> Result<Self, ShapeError> {
        let offsets = Self::default_offsets(coord_dims.len(), &coord_dims);
        Self::build((Logits::Compact, 0), true, lists, coord_dims, offsets)
    }

    /// Per row, the `cap` largest `|a_ik|` that also exceed `relative_cutoff` times that row's own peak; the largest
    /// always stays.
    pub fn from_dense_weights(
        a: ArrayView2<'_, f64>,
        cap: usize,
        relative_cutoff: f64,
        coord_dims: Vec<usize>,
        coord_offsets_full: Option<Vec<usize>>,
    ) -> Result<Self, ShapeError> {
        let n_atoms = a.ncols();
        check_table("weights", a, &coord_dims, relative_cutoff)?;
        if cap == 0 {
            return Err(ShapeError::value("cap must be at least 1"));
        }
        let offsets = coord_offsets_full.unwrap_or_else(|| Self::default_offsets(n_atoms, &coord_dims));
        let lists = a
            .rows()
            .into_iter()
            .map(|row| {
                let magnitude = |k: u32| row[k as usize].abs();
                let larger = |x: &u32, y: &u32| {
                    magnitude(*y).partial_cmp(&magnitude(*x)).unwrap_or(Ordering::Equal).then(x.cmp(y))
                };
                let peak = (0..n_atoms as u32).min_by(larger).expect("at least one atom");
                let bound = relative_cutoff * magnitude(peak);
                let mut kept: Vec<u32> = (0..n_atoms as u32).filter(|&k| k == peak || magnitude(k) > bound).collect();
                if kept.len() > cap {
                    kept.select_nth_unstable_by(cap - 1, larger);
                    kept.truncate(cap);
                }
                kept
            })
            .collect();
        Self::from_active_atoms(lists, coord_dims, offsets)
    }

    /// The atoms of a threshold gate that matter to each row: all open ones (logit above `threshold`), and the closed ones
    /// whose prior still pulls. Closed atoms within the band `(logit - threshold)/temperature > -36` stay when their
    /// `contribution` (the magnitude of their prior's gradient) exceeds `relative_cutoff` times the largest in the row's band;
    /// `cap` trims only these, the largest first. A row left with none keeps its best atom in the band, else its largest logit.
    pub fn from_jumprelu(
        logits: ArrayView2<'_, f64>,
        contribution: ArrayView2<'_, f64>,
        gate: (f64, f64),
        cap: usize,
        relative_cutoff: f64,
        coord_dims: Vec<usize>,
        coord_offsets_full: Option<Vec<usize>>,
    ) -> Result<Self, ShapeError> {
        /// Below this a logistic function is zero to rounding.
        const BAND: f64 = -36.0;
        let (threshold, temperature) = gate;
        let n_atoms = logits.ncols();
        check_table("logits", logits, &coord_dims, relative_cutoff)?;
        if contribution.dim() != logits.dim() {
            return Err(ShapeError::shape("contribution", contribution.shape(), logits.shape()));
        }
        crate::errors::check_finite("contribution", contribution)?;
        if !(temperature > 0.0 && temperature.is_finite() && threshold.is_finite()) {
            return Err(ShapeError::value(format!(
                "threshold must be finite and temperature positive, got {threshold} and {temperature}"
            )));
        }
        let offsets = coord_offsets_full.unwrap_or_else(|| Self::default_offsets(n_atoms, &coord_dims));
        let lists = (0..logits.nrows())
            .map(|i| {
                let (l, c) = (logits.row(i), contribution.row(i));
                let magnitude = |k: u32| c[k as usize].abs();
                let in_band = |k: &u32| (l[*k as usize] - threshold) / temperature > BAND;
                let band: Vec<u32> = (0..n_atoms as u32).filter(in_band).collect();
                let (mut kept, closed): (Vec<u32>, Vec<u32>) = band.iter().partition(|&&k| l[k as usize] > threshold);
                let peak = band.iter().map(|&k| magnitude(k)).fold(0.0, f64::max);
                let mut pulled: Vec<u32> =
                    closed.into_iter().filter(|&k| magnitude(k) > relative_cutoff * peak).collect();
                let larger = |x: &u32, y: &u32| magnitude(*y).total_cmp(&magnitude(*x)).then(x.cmp(y));
                pulled.sort_by(larger);
                pulled.truncate(cap.saturating_sub(kept.len()));
                kept.extend(pulled);
                if kept.is_empty() {
                    let best = band.iter().copied().min_by(larger);
                    let highest = (0..n_atoms as u32).max_by(|x, y| l[*x as usize].total_cmp(&l[*y as usize]));
                    kept.extend(best.or(highest));
                }
                kept
            })
            .collect();
        Self::from_active_atoms(lists, coord_dims, offsets)
    }

    pub fn n_rows(&self) -> usize {
        self.row_start.len() - 1
    }

    /// The atoms in groups, each in order: atoms that some row uses together are in one group, and so are those that share a
    /// group with either.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let mut root: Vec<usize> = (0..self.coord_dims.len()).collect();
        fn find(root: &mut [usize], mut k: usize) -> usize {
            while root[k] != k {
                root[k] = root[root[k]];
                k = root[k];
            }
            k
        }
        for (k, met) in self.met().iter().enumerate() {
            for &with in met {
                let (a, b) = (find(&mut root, k), find(&mut root, with as usize));
                root[a.max(b)] = a.min(b);
            }
        }
        let mut groups: Vec<Vec<usize>> = vec![Vec::new(); root.len()];
        for k in 0..root.len() {
            let first = find(&mut root, k);
            groups[first].push(k);
        }
        groups.retain(|group| !group.is_empty());
        groups
    }

    fn by_atom(&self) -> &ByAtom {
        self.by_atom.get_or_init(|| {
            let n_atoms = self.coord_dims.len();
            let mut start = vec![0; n_atoms + 1];
            self.atoms.iter().for_each(|&k| start[k as usize + 1] += 1);
            (0..n_atoms).for_each(|k| start[k + 1] += start[k]);
            let mut next = start.clone();
            let (mut rows, mut coords) = (vec![0; self.atoms.len()], vec![0; self.atoms.len()]);
            let mut met: Vec<HashSet<u32>> = vec![HashSet::new(); n_atoms];
            for i in 0..self.n_rows() {
                let support = self.active_atoms(i);
                for (s, (&k, &at)) in support.iter().zip(self.coord_starts(i)).enumerate() {
                    let place = &mut next[k as usize];
                    rows[*place] = u32::try_from(i).expect("fewer than 2^32 rows");
                    coords[*place] = self.block_start[i] + at as usize;
                    *place += 1;
                    met[k as usize].extend(&support[..s]);
                }
            }
            let sorted = |met: HashSet<u32>| {
                let mut met: Vec<u32> = met.into_iter().collect();
                met.sort_unstable();
                met
            };
            ByAtom { start, rows, coords, met: met.into_iter().map(sorted).collect() }
        })
    }

    /// The rows that use an atom, in order, with where its coordinates begin among all rows' variables.
    pub fn users(&self, k: usize) -> impl ExactSizeIterator<Item = (usize, usize)> + '_ {
        let by_atom = self.by_atom();
        let own = by_atom.start[k]..by_atom.start[k + 1];
        by_atom.rows[own.clone()].iter().map(|&row| row as usize).zip(by_atom.coords[own].iter().copied())
    }

    /// For each atom those before it that some row uses with it, in order.
    pub fn met(&self) -> &[Vec<u32>] {
        &self.by_atom().met
    }

    pub fn coord_dims(&self) -> &[usize] {
        &self.coord_dims
    }

    pub fn coord_offsets_full(&self) -> &[usize] {
        &self.coord_offsets_full
    }

    /// Row i's active atoms, sorted.
    pub fn active_atoms(&self, i: usize) -> &[u32] {
        &self.atoms[self.row_start[i]..self.row_start[i + 1]]
    }

    /// Where row i's active atoms stand among those of all rows.
    pub fn entries(&self, i: usize) -> Range<usize> {
        self.row_start[i]..self.row_start[i + 1]
    }

    /// Number of active atoms of all rows.
    pub fn n_active(&self) -> usize {
        self.atoms.len()
    }

    /// Whether a row has logits of its active atoms only.
    pub fn is_compact(&self) -> bool {
        self.logits == Logits::Compact
    }

    /// The atoms of row i's logits, with which its block begins.
    pub fn logit_atoms(&self, i: usize) -> &[u32] {
        match self.logits {
            Logits::Compact => self.active_atoms(i),
            Logits::Dense => &self.free,
        }
    }

    /// Where row i's logits stand among those of all rows.
    pub fn logits(&self, i: usize) -> Range<usize> {
        match self.logits {
            Logits::Compact => self.entries(i),
            Logits::Dense => i * self.free.len()..(i + 1) * self.free.len(),
        }
    }

    /// Number of logits of all rows.
    pub fn n_logits(&self) -> usize {
        match self.logits {
            Logits::Compact => self.n_active(),
            Logits::Dense => self.n_rows() * self.free.len(),
        }
    }

    /// Where each active atom's coordinates begin in row i's block.
    pub fn coord_starts(&self, i: usize) -> &[u32] {
        &self.starts[self.row_start[i]..self.row_start[i + 1]]
    }

    /// Size of row i's block.
    pub fn row_q_active(&self, i: usize) -> usize {
        self.block_start[i + 1] - self.block_start[i]
    }

    /// Row i's block when all blocks are laid end to end.
    pub fn block(&self, i: usize) -> Range<usize> {
        self.block_start[i]..self.block_start[i + 1]
    }

    /// Number of variables of all rows.
    pub fn len(&self) -> usize {
        self.block_start[self.n_rows()]
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of coordinates of all rows.
    pub fn n_active_coords(&self) -> usize {
        self.atoms.iter().map(|&k| self.coord_dims[k as usize]).sum()
    }

    /// Number of variables of a full row.
    pub fn full_len(&self) -> usize {
        self.coord_dims.iter().zip(&self.coord_offsets_full).map(|(d, o)| d + o).max().unwrap_or(0)
    }

    /// Writes row i's compact vector to the full row layout, zeros elsewhere.
    pub fn expand_row(&self, i: usize, compact: &[f64], out: &mut [f64]) -> Result<(), ShapeError> {
        if compact.len() != self.row_q_active(i) {
            return Err(ShapeError::shape(format!("row {i}"), &[compact.len()], &[self.row_q_active(i)]));
        }
        if out.len() != self.full_len() {
            return Err(ShapeError::shape("full row", &[out.len()], &[self.full_len()]));
        }
        out.fill(0.0);
        match self.logits {
            Logits::Dense => out[..self.free.len()].copy_from_slice(&compact[..self.free.len()]),
            Logits::Compact => {
                for (position, &k) in self.active_atoms(i).iter().enumerate() {
                    out[k as usize] = compact[position];
                }
            }
        }
        for (&k, &start) in self.active_atoms(i).iter().zip(self.coord_starts(i)) {
            let (to, from, d) = (self.coord_offsets_full[k as usize], start as usize, self.coord_dims[k as usize]);
            out[to..to + d].copy_from_slice(&compact[from..from + d]);
        }
        Ok(())
    }
}

/// Checks a table (rows x atoms) from which a layout is made.
fn check_table(
    what: &str,
    table: ArrayView2<'_, f64>,
    coord_dims: &[usize],
    relative_cutoff: f64,
) -> Result<(), ShapeError> {
    let n_atoms = table.ncols();
    if coord_dims.len() != n_atoms {
        return Err(ShapeError::shape("coord_dims", &[coord_dims.len()], &[n_atoms]));
    }
    if n_atoms == 0 {
        return Err(ShapeError::value("a row layout needs at least one atom"));
    }
    if !(0.0..1.0).contains(&relative_cutoff) {
        return Err(ShapeError::value(format!("relative_cutoff must lie in [0, 1), got {relative_cutoff}")));
    }
    crate::errors::check_finite(what, table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    #[test]
    fn each_row_is_cut_by_its_own_peak() {
        let a = array![[0.0009, 0.0008], [1.0, 0.2], [1.0, 1e-4]];
        let layout = SaeRowLayout::from_dense_weights(a.view(), 2, 1e-3, vec![1, 2], None).unwrap();
        assert_eq!(layout.active_atoms(0), [0, 1]);
        assert_eq!(layout.active_atoms(1), [0, 1]);
        assert_eq!(layout.active_atoms(2), [0]);
        assert_eq!(layout.coord_starts(0), [2, 3]);
        assert_eq!((layout.row_q_active(0), layout.row_q_active(2)), (5, 2));
    }

    #[test]
    fn expanding_puts_every_entry_in_its_place() {
        let layout = SaeRowLayout::from_active_atoms(vec![vec![2, 0]], vec![1, 1, 2], vec![3, 4, 5]).unwrap();
        let mut full = [9.0; 7];
        layout.expand_row(0, &[1.0, 2.0, 3.0, 4.0, 5.0], &mut full).unwrap();
        assert_eq!(full, [1.0, 0.0, 2.0, 3.0, 0.0, 4.0, 5.0]);
        assert!(layout.expand_row(0, &[1.0], &mut full).is_err());
    }

    #[test]
    fn open_gates_stay_and_closed_ones_by_their_pull() {
        let logits = array![[1.0, 0.5, -0.3, -20.0, -25.0, -30.0], [-40.0, -50.0, -60.0, -70.0, -80.0, -90.0]];
        let sigmoid = logits.mapv(|l: f64| 1.0 / (1.0 + (-l).exp()));
        let pull = sigmoid.mapv(|s| s * (1.0 - s));
        let make =
            |cap| SaeRowLayout::from_jumprelu(logits.view(), pull.view(), (0.0, 1.0), cap, 1e-3, vec![1; 6], None);
        let layout = make(6).unwrap();
        assert_eq!(layout.active_atoms(0), [0, 1, 2]);
        assert_eq!(layout.row_q_active(0), 6);
        // nothing in the band: the largest logit
        assert_eq!(layout.active_atoms(1), [0]);
        // the cap never closes an open gate
        assert_eq!(make(2).unwrap().active_atoms(0), [0, 1]);
        assert_eq!(make(1).unwrap().active_atoms(0), [0, 1]);
    }

    #[test]
    fn groups_are_what_rows_tie_together() {
        let lists = vec![vec![4, 1], vec![0], vec![2, 4], vec![3], vec![]];
        let layout = SaeRowLayout::with_independent_logits(lists.into_iter(), 0, vec![1; 6]).unwrap();
        assert_eq!(layout.groups(), [vec![0], vec![1, 2, 4], vec![3], vec![5]]);
    }

    #[test]
    fn users_are_the_rows_that_use_an_atom() {
        let lists = vec![vec![2, 0], vec![], vec![2], vec![1, 2]];
        let layout = SaeRowLayout::with_independent_logits(lists.into_iter(), 3, vec![1, 1, 2]).unwrap();
        let users = |k| layout.users(k).collect::<Vec<_>>();
        assert_eq!(users(0), [(0, 3)]);
        assert_eq!(users(1), [(3, 17)]);
        assert_eq!(users(2), [(0, 4), (2, 12), (3, 18)]);
        assert_eq!(layout.met(), [vec![], vec![], vec![0, 1]]);
    }

    #[test]
    fn rows_have_their_open_logits_or_all() {
        let lists = || vec![vec![2, 0], vec![], vec![1]].into_iter();
        let open = SaeRowLayout::with_open_logits(lists(), vec![1, 1, 2]).unwrap();
        assert_eq!((open.logit_atoms(0), open.logits(2), open.n_logits()), (&[0, 2][..], 2..3, 3));
        assert_eq!((open.coord_starts(0), open.row_q_active(1), open.len()), (&[2, 3][..], 0, 7));
        let all = SaeRowLayout::with_independent_logits(lists(), 3, vec![1, 1, 2]).unwrap();
        assert_eq!((all.logit_atoms(1), all.logits(2), all.n_logits()), (&[0, 1, 2][..], 6..9, 9));
    }

    #[test]
    fn misuse_is_named() {
        assert_eq!(
            SaeRowLayout::from_active_atoms(vec![vec![0], vec![]], vec![1], vec![1]),
            Err(ShapeError::EmptySupport { row: 1 })
        );
        assert!(SaeRowLayout::from_active_atoms(vec![vec![3]], vec![1], vec![1]).is_err());
        let a = array![[1.0, f64::NAN]];
        assert!(SaeRowLayout::from_dense_weights(a.view(), 1, 1e-3, vec![1, 1], None).is_err());
    }

    proptest! {
        #[test]
        fn kept_atoms_are_the_largest(
            weights in prop::collection::vec(prop::collection::vec(-1.0f64..1.0, 6), 1..8), cap in 1usize..7
        ) {
            let a = ndarray::Array2::from_shape_fn((weights.len(), 6), |(i, k)| weights[i][k]);
            let layout = SaeRowLayout::from_dense_weights(a.view(), cap, 1e-3, vec![1; 6], None).unwrap();
            for i in 0..a.nrows() {
                let kept = layout.active_atoms(i);
                let least = kept.iter().map(|&k| a[[i, k as usize]].abs()).fold(f64::INFINITY, f64::min);
                let peak = a.row(i).iter().fold(0.0f64, |m, v| m.max(v.abs()));
                prop_assert!(!kept.is_empty() && kept.len() <= cap);
                for k in (0..6u32).filter(|k| !kept.contains(k)) {
                    let v = a[[i, k as usize]].abs();
                    prop_assert!(v <= least || v <= 1e-3 * peak);
                }
            }
        }
    }
}
