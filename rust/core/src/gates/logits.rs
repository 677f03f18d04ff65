//! Logits of a row, read by atom.

use std::ops::Index;

/// Logits of a row: those of all atoms in order, or of some of them.
#[derive(Clone, Copy, Debug)]
pub struct RowLogits<'a> {
    values: &'a [f64],
    /// Whose they are, sorted; `None` for all atoms.
    atoms: Option<&'a [u32]>,
}

impl<'a> RowLogits<'a> {
    /// Those of some atoms, in their order.
    pub fn of(atoms: &'a [u32], values: &'a [f64]) -> Self {
        Self { values, atoms: Some(atoms) }
    }

    /// One after the other, for gates whose logits are all there.
    pub fn values(self) -> &'a [f64] {
        self.values
    }

    /// Each with its atom.
    pub fn iter(self) -> impl Iterator<Item = (usize, f64)> + 'a {
        let atom = move |at: usize| self.atoms.map_or(at, |atoms| atoms[at] as usize);
        self.values.iter().enumerate().map(move |(at, &logit)| (atom(at), logit))
    }
}

impl Index<usize> for RowLogits<'_> {
    type Output = f64;

    /// The logit of an atom, which must be among them.
    fn index(&self, atom: usize) -> &f64 {
        let place = match self.atoms {
            None => atom,
            Some(atoms) => atoms.binary_search(&(atom as u32)).expect("an atom whose logit the row has"),
        };
        &self.values[place]
    }
}

impl<'a> From<&'a [f64]> for RowLogits<'a> {
    fn from(values: &'a [f64]) -> Self {
        Self { values, atoms: None }
    }
}

impl<'a> From<&'a Vec<f64>> for RowLogits<'a> {
    fn from(values: &'a Vec<f64>) -> Self {
        values[..].into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_read_by_their_atoms() {
        let values = vec![0.5, -1.0, 2.0];
        let (all, some) = (RowLogits::from(&values), RowLogits::of(&[1, 4, 7], &values));
        assert_eq!((all[2], some[7], some[1]), (2.0, 2.0, 0.5));
        assert_eq!(some.iter().collect::<Vec<_>>(), [(1, 0.5), (4, -1.0), (7, 2.0)]);
        assert_eq!(all.iter().map(|(k, _)| k).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
