//! The outer vector: log-strengths of every prior and the log-dispersion.

use crate::errors::ShapeError;

/// Exponents are clamped to this, so that every strength is finite and positive.
const MAX_EXPONENT: f64 = 700.0;

fn strength(log: f64) -> f64 {
    log.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()
}

/// Whether ARD precisions belong to each atom or to an axis of all atoms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArdSharing {
    PerAtom,
    Shared,
}

/// Log-strengths `[ln lambda_sparse | ln lambda_1..K | ARD log-precisions | ln phi]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SaeManifoldRho {
    pub log_lambda_sparse: f64,
    pub log_lambda_smooth: Vec<f64>,
    /// One block per atom, one entry per axis; an empty block turns ARD off.
    pub log_ard: Vec<Vec<f64>>,
    pub ard_sharing: ArdSharing,
    /// `None` where the dispersion is fixed at one.
    pub log_dispersion: Option<f64>,
    /// Whether a given `log_dispersion` is held: it is then no entry of the flat vector.
    pub fixed_dispersion: bool,
}

impl SaeManifoldRho {
    /// One smoothness strength per atom, ARD off.
    pub fn with_per_atom_smooth(log_lambda_sparse: f64, log_lambda_smooth: Vec<f64>, log_dispersion: f64) -> Self {
        let log_ard = vec![Vec::new(); log_lambda_smooth.len()];
        Self {
            log_lambda_sparse,
            log_lambda_smooth,
            log_ard,
            ard_sharing: ArdSharing::PerAtom,
            log_dispersion: Some(log_dispersion),
            fixed_dispersion: false,
        }
    }

    /// The same strengths with the dispersion held where it is.
    pub fn with_fixed_dispersion(mut self) -> Self {
        self.fixed_dispersion = true;
        self
    }

    /// The dispersion's entry of the flat vector.
    fn free_dispersion(&self) -> Option<f64> {
        self.log_dispersion.filter(|_| !self.fixed_dispersion)
    }

    pub fn n_atoms(&self) -> usize {
        self.log_lambda_smooth.len()
    }

    /// The largest number of ARD axes that any atom has.
    pub fn max_ard_axes(&self) -> usize {
        self.log_ard.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn ard_len(&self) -> usize {
        match self.ard_sharing {
            ArdSharing::PerAtom => self.log_ard.iter().map(Vec::len).sum(),
            ArdSharing::Shared => self.max_ard_axes(),
        }
    }

    pub fn len(&self) -> usize {
        1 + self.n_atoms() + self.ard_len() + usize::from(self.free_dispersion().is_some())
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    pub fn lambda_sparse(&self) -> f64 {
        strength(self.log_lambda_sparse)
    }

    pub fn lambda_smooth(&self, atom: usize) -> f64 {
        strength(self.log_lambda_smooth[atom])
    }

    pub fn lambda_smooth_vec(&self) -> Vec<f64> {
        (0..self.n_atoms()).map(|k| self.lambda_smooth(k)).collect()
    }

    /// ARD precision of an axis, `None` where it is off.
    pub fn ard(&self, atom: usize, axis: usize) -> Option<f64> {
        self.log_ard[atom].get(axis).map(|&l| strength(l))
    }

    pub fn dispersion(&self) -> f64 {
        self.log_dispersion.map_or(1.0, strength)
    }

    /// Position of an axis's ARD entry in the flat vector.
    pub fn ard_slot(&self, atom: usize, axis: usize) -> usize {
        let base = 1 + self.n_atoms();
        match self.ard_sharing {
            ArdSharing::PerAtom => base + self.log_ard[..atom].iter().map(Vec::len).sum::<usize>() + axis,
            ArdSharing::Shared => base + axis,
        }
    }

    /// Positions of the ARD entries in the flat vector, each with its precision.
    pub fn ard_entries(&self) -> impl Iterator<Item = (usize, f64)> {
        let (flat, base) = (self.to_flat(), 1 + self.n_atoms());
        (base..base + self.ard_len()).map(move |slot| (slot, strength(flat[slot])))
    }

    /// Position of `ln phi` in the flat vector.
    pub fn dispersion_slot(&self) -> Option<usize> {
        self.free_dispersion().map(|_| self.len() - 1)
    }

    /// A shared value is the mean over the atoms that own the axis.
    pub fn to_flat(&self) -> Vec<f64> {
        let mut flat = vec![self.log_lambda_sparse];
        flat.extend(&self.log_lambda_smooth);
        match self.ard_sharing {
            ArdSharing::PerAtom => flat.extend(self.log_ard.iter().flatten()),
            ArdSharing::Shared => flat.extend((0..self.max_ard_axes()).map(|j| {
                let owners: Vec<f64> = self.log_ard.iter().filter_map(|b| b.get(j).copied()).collect();
                owners.iter().sum::<f64>() / owners.len() as f64
            })),
        }
        flat.extend(self.free_dispersion());
        flat
    }

    /// The inverse of [`Self::to_flat`], with this vector's layout; shared values are broadcast to their owners.
    pub fn from_flat(&self, flat: &[f64]) -> Result<Self, ShapeError> {
        if flat.len() != self.len() {
            return Err(ShapeError::shape("flat rho", &[flat.len()], &[self.len()]));
        }
        if let Some(i) = flat.iter().position(|v| !v.is_finite()) {
            return Err(ShapeError::NotFinite { what: "flat rho".into(), index: vec![i], value: flat[i] });
        }
        let mut out = self.clone();
        out.log_lambda_sparse = flat[0];
        out.log_lambda_smooth.copy_from_slice(&flat[1..1 + self.n_atoms()]);
        for k in 0..self.n_atoms() {
            for j in 0..self.log_ard[k].len() {
                out.log_ard[k][j] = flat[self.ard_slot(k, j)];
            }
        }
        if self.free_dispersion().is_some() {
            out.log_dispersion = Some(flat[self.len() - 1]);
        }
        Ok(out)
    }

    /// Adds `ln phi` to every strength that is measured against the noise.
    pub fn seed_scaled_by_dispersion(&self, phi: f64) -> Result<Self, ShapeError> {
        self.seed_scaled_by_dispersion_for_assignment(phi, false)
    }

    /// As [`Self::seed_scaled_by_dispersion`]; the sparsity entry is left alone where it is the offset of a learnable
    /// concentration.
    pub fn seed_scaled_by_dispersion_for_assignment(
        &self,
        phi: f64,
        learnable_alpha: bool,
    ) -> Result<Self, ShapeError> {
        if !(phi > 0.0 && phi.is_finite()) {
            return Err(ShapeError::value(format!("the dispersion must be positive and finite, got {phi}")));
        }
        let shift = phi.ln();
        let mut out = self.clone();
        if !learnable_alpha {
            out.log_lambda_sparse += shift;
        }
        out.log_lambda_smooth.iter_mut().for_each(|l| *l += shift);
        out.log_ard.iter_mut().flatten().for_each(|l| *l += shift);
        Ok(out)
    }

    /// Checks that the vector fits a dictionary whose atoms have these dimensions.
    pub fn check(&self, coord_dims: &[usize]) -> Result<(), ShapeError> {
        let k = coord_dims.len();
        if self.n_atoms() != k {
            return Err(ShapeError::shape("log_lambda_smooth", &[self.n_atoms()], &[k]));
        }
        if self.log_ard.len() != k {
            return Err(ShapeError::shape("log_ard", &[self.log_ard.len()], &[k]));
        }
        for (atom, block) in self.log_ard.iter().enumerate() {
            if !block.is_empty() && block.len() != coord_dims[atom] {
                return Err(ShapeError::shape(format!("log_ard[{atom}]"), &[block.len()], &[coord_dims[atom]]));
            }
        }
        if let Some(value) = self.log_dispersion.filter(|v| !v.is_finite()) {
            return Err(ShapeError::value(format!("log_dispersion must be finite, got {value}")));
        }
        let flat = self.to_flat();
        match flat.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(ShapeError::NotFinite { what: "rho".into(), index: vec![i], value: flat[i] }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rho(sharing: ArdSharing) -> impl Strategy<Value = SaeManifoldRho> {
        prop::collection::vec((-9.0f64..9.0, 0usize..3, -5.0f64..5.0), 1..5).prop_map(move |atoms| SaeManifoldRho {
            log_lambda_sparse: 0.3,
            log_lambda_smooth: atoms.iter().map(|a| a.0).collect(),
            log_ard: atoms.iter().map(|a| vec![if sharing == ArdSharing::Shared { 0.5 } else { a.2 }; a.1]).collect(),
            ard_sharing: sharing,
            log_dispersion: Some(-3.0),
            fixed_dispersion: false,
        })
    }

    proptest! {
        #[test]
        fn flat_round_trip(r in prop_oneof![rho(ArdSharing::PerAtom), rho(ArdSharing::Shared)]) {
            prop_assert_eq!(r.to_flat().len(), r.len());
            prop_assert_eq!(&r.from_flat(&r.to_flat()).unwrap(), &r);
            prop_assert!(r.from_flat(&vec![0.0; r.len() + 1]).is_err());
        }
    }

    #[test]
    fn a_shared_axis_is_the_mean_of_its_owners() {
        let mut r = SaeManifoldRho::with_per_atom_smooth(0.0, vec![0.0; 3], 0.0);
        r.ard_sharing = ArdSharing::Shared;
        r.log_ard = vec![vec![1.0, 5.0], vec![], vec![3.0]];
        assert_eq!(r.to_flat(), [0.0, 0.0, 0.0, 0.0, 2.0, 5.0, 0.0]);
        let back = r.from_flat(&r.to_flat()).unwrap();
        assert_eq!(back.log_ard, [vec![2.0, 5.0], vec![], vec![2.0]]);
    }

    #[test]
    fn strengths_stay_finite() {
        let r = SaeManifoldRho::with_per_atom_smooth(1e9, vec![-1e9], 0.0);
        assert!(r.lambda_sparse().is_finite() && r.lambda_smooth(0) > 0.0);
        assert!(r.seed_scaled_by_dispersion(0.0).is_err());
    }
}
