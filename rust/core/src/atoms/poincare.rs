//! A patch of hyperbolic space: quadratic monomials of a tangent vector at the origin of the Poincare ball.

use super::{Atom, BasisJet, ChartFactor, Patch};
use crate::errors::ShapeError;
use crate::special::gauss_legendre;
use ndarray::Array2;

/// The columns and motions of a quadratic patch, with a roughness that weighs gradients as hyperbolic space does.
#[derive(Clone, Debug, PartialEq)]
pub struct Poincare {
    patch: Patch,
    roughness: Array2<f64>,
}

/// Above this a row has more coordinates than its outputs identify.
const MAX_DIM: usize = 6;
/// Nodes on the radius; the integrand is entire, so they are exact to rounding.
const RADIAL_NODES: usize = 32;

impl Poincare {
    pub fn new(dim: usize) -> Result<Self, ShapeError> {
        if dim == 0 || dim > MAX_DIM {
            return Err(ShapeError::value(format!("a Poincare patch needs a dim between 1 and {MAX_DIM}, got {dim}")));
        }
        Ok(Self { patch: Patch::new(dim, 2)?, roughness: dirichlet(dim) })
    }
}

/// The Dirichlet form `sqrt(det h) dPhi' h^-1 dPhi` of curvature -1, its mean over t uniform on the unit ball.
///
/// With r = |t| and u = t/r the exponential map at the origin pulls the metric back to
/// `h = 4 uu' + (sinh 2r / r)^2 (I - uu')`, so gradients are weighed by `A uu' + B (I - uu')` with
/// `A = 1/2 (sinh 2r / r)^(d-1)` and `B = 2 (sinh 2r / r)^(d-3)`. Any radial measure keeps rotations exact; over the normal prior
/// of t the mean is dominated by r near 2 (d - 1), which no row reaches. Directions are averaged by the moments of the sphere,
/// `<u_i u_j> = delta_ij / d` and `<u_i u_j u_k u_l> = (delta_ij delta_kl + ...) / (d (d + 2))`.
fn dirichlet(d: usize) -> Array2<f64> {
    let size = d as f64;
    // radial means of A, B and of r^2 A, r^2 B
    let mut means = [0.0; 4];
    for (node, weight) in gauss_legendre(RADIAL_NODES) {
        let r = 0.5 * (node + 1.0);
        let density = 0.5 * weight * size * r.powi(d as i32 - 1);
        let stretch = (2.0 * r).sinh() / r;
        let a = 0.5 * stretch.powi(d as i32 - 1);
        let b = if d > 1 { 2.0 * stretch.powi(d as i32 - 3) } else { 0.0 };
        [a, b, r * r * a, r * r * b].iter().zip(&mut means).for_each(|(v, mean)| *mean += density * v);
    }
    let [along, across, square_along, square_across] = means;
    let is = |i: usize, j: usize| f64::from(u8::from(i == j));
    // the axes of every column
    let linear = (0..d).map(|i| vec![i]);
    let quadratic = (0..d).flat_map(|i| (i..d).map(move |j| vec![i, j]));
    let axes: Vec<Vec<usize>> = std::iter::once(Vec::new()).chain(linear).chain(quadratic).collect();
    Array2::from_shape_fn((axes.len(), axes.len()), |(m, n)| match (&axes[m][..], &axes[n][..]) {
        (&[i], &[j]) => is(i, j) * (along / size + across * (1.0 - 1.0 / size)),
        (&[i, j], &[k, l]) => {
            let product = (is(i, j) * is(k, l) + is(i, k) * is(j, l) + is(i, l) * is(j, k)) / (size * (size + 2.0));
            // grad u_i u_j = u_i e_j + u_j e_i
            let gradients =
                (is(i, k) * is(j, l) + is(i, l) * is(j, k) + is(j, k) * is(i, l) + is(j, l) * is(i, k)) / size;
            4.0 * square_along * product + square_across * (gradients - 4.0 * product)
        }
        // the constant has no gradient, and linear and quadratic columns are orthogonal by parity
        _ => 0.0,
    })
}

impl Atom for Poincare {
    fn kind(&self) -> &'static str {
        "poincare"
    }
    fn key(&self) -> String {
        format!("poincare:{}", self.dim())
    }
    fn width(&self) -> usize {
        self.patch.width()
    }
    fn factors(&self) -> &[ChartFactor] {
        self.patch.factors()
    }
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        self.patch.basis(t, phi);
    }
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        self.patch.jet(t, out);
    }
    fn third(&self, t: &[f64], d3: &mut [f64]) {
        self.patch.third(t, d3);
    }
    fn roughness(&self) -> Array2<f64> {
        self.roughness.clone()
    }
    fn null_projector(&self) -> Array2<f64> {
        let mut n = Array2::zeros((self.width(), self.width()));
        n[[0, 0]] = 1.0;
        n
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        self.patch.advance(t, step);
    }
    fn generators(&self) -> Vec<Array2<f64>> {
        self.patch.generators()
    }
    fn velocity(&self, generator: usize, t: &[f64], v: &mut [f64], dv: &mut [f64]) {
        self.patch.velocity(generator, t, v, dv);
    }
    fn ln_group_volume(&self) -> f64 {
        self.patch.ln_group_volume()
    }
    fn degrees(&self) -> Option<Vec<u32>> {
        self.patch.degrees()
    }
    fn ln_symmetries(&self, gauged: bool) -> f64 {
        self.patch.ln_symmetries(gauged)
    }
    fn seed_components(&self) -> usize {
        self.patch.seed_components()
    }
    fn seed_blocks(&self) -> Vec<Vec<usize>> {
        self.patch.seed_blocks()
    }
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        self.patch.seed(scores, t);
    }
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        self.patch.seed_rows(scores)
    }
    fn search_grid(&self) -> Array2<f64> {
        self.patch.search_grid()
    }
    fn origin(&self, t: &mut [f64]) {
        self.patch.origin(t);
    }
}

#[cfg(test)]
mod tests {
    use super::super::checks;
    use super::*;
    use crate::linalg::symmetric_eigen;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chart(dim in 1usize..4, t in proptest::array::uniform3(-2.0f64..2.0)) {
            checks::chart(&Poincare::new(dim).unwrap(), &t[..dim]);
        }
    }

    #[test]
    fn gauge() {
        (1..=MAX_DIM).for_each(|dim| checks::gauge(&Poincare::new(dim).unwrap()));
    }

    /// The weight of gradients at a point, from the metric's definition.
    fn weight(t: &[f64]) -> Array2<f64> {
        let d = t.len();
        let r = t.iter().map(|v| v * v).sum::<f64>().sqrt();
        let stretch = ((2.0 * r).sinh() / r).powi(2);
        let metric = Array2::from_shape_fn((d, d), |(a, b)| {
            let along = t[a] * t[b] / (r * r);
            4.0 * along + stretch * (f64::from(u8::from(a == b)) - along)
        });
        let (values, vectors) = symmetric_eigen(metric.view());
        let root: f64 = values.iter().map(|v| v.sqrt()).product();
        Array2::from_shape_fn((d, d), |(a, b)| {
            (0..d).map(|e| root * vectors[[a, e]] * vectors[[b, e]] / values[e]).sum()
        })
    }

    #[test]
    fn roughness_is_the_mean_dirichlet_form_over_the_ball() {
        for dim in 1..=3 {
            let atom = Poincare::new(dim).unwrap();
            let m = atom.width();
            let cells: usize = [0, 4000, 400, 60][dim];
            let step = 2.0 / cells as f64;
            let (mut gram, mut inside) = (Array2::<f64>::zeros((m, m)), 0.0);
            let mut jet = BasisJet::new(dim, m);
            for index in 0..cells.pow(dim as u32) {
                let t: Vec<f64> =
                    (0..dim).map(|a| ((index / cells.pow(a as u32) % cells) as f64 + 0.5) * step - 1.0).collect();
                if t.iter().map(|v| v * v).sum::<f64>() > 1.0 {
                    continue;
                }
                inside += 1.0;
                atom.jet(&t, &mut jet);
                let d1 = Array2::from_shape_vec((dim, m), jet.d1.clone()).unwrap();
                gram += &d1.t().dot(&weight(&t).dot(&d1));
            }
            let expected = atom.roughness();
            let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let worst = (gram / inside - &expected).iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(worst < 5e-3 * largest, "{dim}: {worst} of {largest}");
        }
    }
}
