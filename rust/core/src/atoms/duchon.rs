//! Duchon splines: polyharmonic kernels at given centres, and the polynomials that they leave free.

use super::{Atom, BasisJet, ChartFactor, Patch};
use crate::errors::{check_finite, ShapeError};
use crate::linalg::symmetric_eigen;
use ndarray::{s, Array1, Array2, ArrayView2};

/// Splines of real coordinates with a knot at every centre.
///
/// The columns are `a kappa(|t - c_j|) Z`, with `P'Z = 0` for the polynomials P at the centres, then the monomials of degree
/// below `m = floor(d/2) + 2`. The constraint keeps the kernels from growing faster than the polynomials outside the centres.
#[derive(Clone, Debug, PartialEq)]
pub struct Duchon {
    centers: Array2<f64>,
    /// Its columns are the polynomials; it also knows how real coordinates are seeded.
    polynomials: Patch,
    /// aZ: kernels to columns, C x (C - polynomials).
    combine: Array2<f64>,
    /// a^2 Z'KZ.
    energy: Array2<f64>,
}

/// Above this a search grid is sparse and polynomials alone take dozens of columns.
const MAX_DIM: usize = 6;
/// Centres whose polynomials have a relative singular value below this do not determine them.
const LEAST_SINGULAR: f64 = 1e-10;
/// Centres closer than this part of their spread coincide.
const LEAST_DISTANCE: f64 = 1e-8;

/// kappa of a radius r > 0 with `kappa'/r`, and the same of that and of that in turn: all Cartesian derivatives to the third
/// are made of them. Signed so that the kernel is conditionally positive definite.
fn radial(even: bool, r: f64) -> [f64; 4] {
    if even {
        let ln = r.ln();
        [-r.powi(4) * ln, -r * r * (4.0 * ln + 1.0), -(8.0 * ln + 6.0), -8.0 / (r * r)]
    } else {
        [r.powi(3), 3.0 * r, 3.0 / r, -3.0 / r.powi(3)]
    }
}

/// Columns of an orthogonal complement of the columns of `p` (c x k): the last of Q in its Householder QR. Reflectors point
/// along `x + sign(x_1) |x| e_1`, with the sign of a zero x_1 positive, so that columns are the same everywhere.
fn complement(p: &Array2<f64>) -> Array2<f64> {
    /// Entries below this part of their column are rounding, and count as zero.
    const ROUNDING: f64 = 1e-10;
    let (c, k) = p.dim();
    let mut r = p.clone();
    let mut reflectors: Vec<Array1<f64>> = Vec::new();
    for j in 0..k {
        let mut v = r.slice(s![j.., j]).to_owned();
        let norm = v.dot(&v).sqrt();
        v[0] += if v[0] < -ROUNDING * norm { -norm } else { norm };
        v /= v.dot(&v).sqrt();
        for mut column in r.slice_mut(s![j.., ..]).columns_mut() {
            let along = 2.0 * v.dot(&column);
            column.scaled_add(-along, &v);
        }
        reflectors.push(v);
    }
    let mut z = Array2::from_shape_fn((c, c - k), |(i, j)| f64::from(u8::from(i == j + k)));
    for (j, v) in reflectors.iter().enumerate().rev() {
        for mut column in z.slice_mut(s![j.., ..]).columns_mut() {
            let along = 2.0 * v.dot(&column);
            column.scaled_add(-along, v);
        }
    }
    z
}

impl Duchon {
    /// `centers` is C x d.
    pub fn new(centers: ArrayView2<'_, f64>) -> Result<Self, ShapeError> {
        let (c, dim) = centers.dim();
        check_finite("centers", centers)?;
        if dim == 0 || dim > MAX_DIM {
            return Err(ShapeError::value(format!("centers need between 1 and {MAX_DIM} columns, got {dim}")));
        }
        let patch = Patch::new(dim, dim / 2 + 1)?;
        if c <= patch.width() {
            return Err(ShapeError::value(format!(
                "centers has {c} rows: in {dim} dimensions the {} polynomials need at least {} centres",
                patch.width(),
                patch.width() + 1
            )));
        }
        let distance = |i: usize, j: usize| {
            centers.row(i).iter().zip(centers.row(j)).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
        };
        let spread = (1..c).map(|i| distance(0, i)).fold(0.0, f64::max);
        for i in 0..c {
            if let Some(j) = (0..i).find(|&j| distance(i, j) <= LEAST_DISTANCE * spread) {
                return Err(ShapeError::value(format!("centers {j} and {i} coincide")));
            }
        }
        let mut polynomials = Array2::zeros((c, patch.width()));
        for (center, mut row) in centers.rows().into_iter().zip(polynomials.rows_mut()) {
            patch.basis(&center.to_vec(), row.as_slice_mut().expect("standard layout"));
        }
        let mut scaled = polynomials.clone();
        for mut column in scaled.columns_mut() {
            let norm = column.dot(&column).sqrt();
            if norm > 0.0 {
                column /= norm;
            }
        }
        let (values, _) = symmetric_eigen(scaled.t().dot(&scaled).view());
        if values[0] <= LEAST_SINGULAR.powi(2).max(f64::EPSILON * c as f64) * values[values.len() - 1] {
            return Err(ShapeError::value(format!(
                "centers lie on a curve on which some polynomial of degree {} vanishes: they do not determine the {} \
                 polynomials",
                dim / 2 + 1,
                patch.width()
            )));
        }
        let even = dim % 2 == 0;
        let kernel = Array2::from_shape_fn((c, c), |(i, j)| if i == j { 0.0 } else { radial(even, distance(i, j))[0] });
        let z = complement(&polynomials);
        let energy = z.t().dot(&kernel.dot(&z));
        // kernels whose roughness is one on average
        let amplitude = ((c - patch.width()) as f64 / energy.diag().sum()).sqrt();
        let energy = (&energy + &energy.t()) * (0.5 * amplitude * amplitude);
        if !amplitude.is_finite() {
            return Err(ShapeError::value("centers are too close to each other or too far apart for their kernels"));
        }
        Ok(Self {
            centers: centers.as_standard_layout().into_owned(),
            polynomials: patch,
            combine: z * amplitude,
            energy,
        })
    }

    fn kernels(&self) -> usize {
        self.combine.ncols()
    }

    /// Calls `f(j, t - c_j, radial functions)` for every centre; at the centre itself all derivatives are zero (the third of
    /// r^3 jumps there; it enters no formula of V).
    fn each(&self, t: &[f64], mut f: impl FnMut(usize, &[f64], [f64; 4])) {
        let mut apart = vec![0.0; t.len()];
        for (j, center) in self.centers.rows().into_iter().enumerate() {
            apart.iter_mut().zip(t.iter().zip(center)).for_each(|(a, (t, c))| *a = t - c);
            let r = apart.iter().map(|v| v * v).sum::<f64>().sqrt();
            let values = if r > 0.0 { radial(self.dim() % 2 == 0, r) } else { [0.0; 4] };
            f(j, &apart, values);
        }
    }

    /// Adds a derivative of kernel j to the columns.
    fn spread(&self, j: usize, value: f64, out: &mut [f64]) {
        out.iter_mut().zip(self.combine.row(j)).for_each(|(o, z)| *o += value * z);
    }
}

impl Atom for Duchon {
    fn kind(&self) -> &'static str {
        "duchon"
    }
    fn key(&self) -> String {
        // equal bits, equal columns
        let bits: Vec<String> = self.centers.iter().map(|v| format!("{:x}", v.to_bits())).collect();
        format!("duchon:{}:{}", self.dim(), bits.join(","))
    }
    fn width(&self) -> usize {
        self.centers.nrows()
    }
    fn factors(&self) -> &[ChartFactor] {
        self.polynomials.factors()
    }
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        let (kernels, polynomials) = phi.split_at_mut(self.kernels());
        kernels.fill(0.0);
        self.each(t, |j, _, f| self.spread(j, f[0], kernels));
        self.polynomials.basis(t, polynomials);
    }
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        let (d, m, n) = (self.dim(), self.width(), self.kernels());
        let mut polynomials = BasisJet::new(d, m - n);
        self.polynomials.jet(t, &mut polynomials);
        for (block, own) in
            [(&mut out.phi, &polynomials.phi), (&mut out.d1, &polynomials.d1), (&mut out.d2, &polynomials.d2)]
        {
            for (columns, own) in block.chunks_exact_mut(m).zip(own.chunks_exact(m - n)) {
                columns[..n].fill(0.0);
                columns[n..].copy_from_slice(own);
            }
        }
        self.each(t, |j, x, f| {
            self.spread(j, f[0], &mut out.phi[..n]);
            for a in 0..d {
                self.spread(j, f[1] * x[a], &mut out.d1[a * m..a * m + n]);
                for b in 0..d {
                    let value = f[2] * x[a] * x[b] + if a == b { f[1] } else { 0.0 };
                    let at = (a * d + b) * m;
                    self.spread(j, value, &mut out.d2[at..at + n]);
                }
            }
        });
    }
    fn third(&self, t: &[f64], d3: &mut [f64]) {
        let (d, m, n) = (self.dim(), self.width(), self.kernels());
        let mut polynomials = vec![0.0; d * d * d * (m - n)];
        self.polynomials.third(t, &mut polynomials);
        for (columns, own) in d3.chunks_exact_mut(m).zip(polynomials.chunks_exact(m - n)) {
            columns[..n].fill(0.0);
            columns[n..].copy_from_slice(own);
        }
        self.each(t, |j, x, f| {
            for (index, columns) in d3.chunks_exact_mut(m).enumerate() {
                let [a, b, c] = [index / (d * d), index / d % d, index % d];
                let mut value = f[3] * x[a] * x[b] * x[c];
                for (pair, third) in [((a, b), c), ((b, c), a), ((c, a), b)] {
                    value += if pair.0 == pair.1 { f[2] * x[third] } else { 0.0 };
                }
                self.spread(j, value, &mut columns[..n]);
            }
        });
    }
    /// The native energy of the kernels; polynomials have none.
    fn roughness(&self) -> Array2<f64> {
        let mut out = Array2::zeros((self.width(), self.width()));
        out.slice_mut(s![..self.kernels(), ..self.kernels()]).assign(&self.energy);
        out
    }
    fn null_projector(&self) -> Array2<f64> {
        Array2::from_diag(&Array1::from_shape_fn(self.width(), |j| f64::from(u8::from(j >= self.kernels()))))
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        t.iter_mut().zip(step).for_each(|(t, s)| *t += s);
    }
    /// None: the centres stay where they are.
    fn generators(&self) -> Vec<Array2<f64>> {
        Vec::new()
    }
    fn velocity(&self, _: usize, _: &[f64], _: &mut [f64], _: &mut [f64]) {
        unreachable!("no generators")
    }
    fn ln_group_volume(&self) -> f64 {
        0.0
    }
    fn ln_symmetries(&self, _: bool) -> f64 {
        0.0
    }
    fn seed_components(&self) -> usize {
        self.polynomials.seed_components()
    }
    fn seed_blocks(&self) -> Vec<Vec<usize>> {
        self.polynomials.seed_blocks()
    }
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        self.polynomials.seed(scores, t);
    }
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        self.polynomials.seed_rows(scores)
    }
    /// The polynomials' grid and the centres.
    fn search_grid(&self) -> Array2<f64> {
        let grid = self.polynomials.search_grid();
        ndarray::concatenate(ndarray::Axis(0), &[grid.view(), self.centers.view()]).expect("as many columns")
    }
    fn origin(&self, t: &mut [f64]) {
        t.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::checks;
    use super::*;
    use proptest::prelude::*;

    fn scattered(c: usize, dim: usize) -> Duchon {
        // multiples of irrational numbers: no two alike, no curve through all
        let root = [2f64.sqrt(), 3f64.sqrt(), 5f64.sqrt()];
        let centers = Array2::from_shape_fn((c, dim), |(i, a)| 4.0 * ((i + 1) as f64 * root[a]).fract() - 2.0);
        Duchon::new(centers.view()).unwrap()
    }

    proptest! {
        #[test]
        fn chart(dim in 1usize..4, t in proptest::array::uniform3(-2.0f64..2.0)) {
            let atom = scattered(14, dim);
            // differences across a centre see a jump of the third derivative
            let clear = atom.centers.rows().into_iter().all(|c| {
                c.iter().zip(&t).map(|(c, t)| (c - t) * (c - t)).sum::<f64>() > 0.01
            });
            prop_assume!(clear);
            checks::chart(&atom, &t[..dim]);
        }
    }

    #[test]
    fn gauge() {
        (1..=3).for_each(|dim| checks::gauge(&scattered(14, dim)));
    }

    #[test]
    fn one_dimension_is_the_natural_cubic_spline() {
        let atom = scattered(9, 1);
        let m = atom.width();
        // straight outside the centres
        let mut jet = BasisJet::new(1, m);
        for t in [-3.0, 5.0] {
            atom.jet(&[t], &mut jet);
            assert!(jet.d2.iter().all(|v| v.abs() < 1e-12));
        }
        // S is proportional to the integrated squared second derivative
        let (n, low, high) = (40_000, -2.5, 2.5);
        let step = (high - low) / f64::from(n);
        let mut gram = Array2::<f64>::zeros((m, m));
        for i in 0..n {
            atom.jet(&[low + (f64::from(i) + 0.5) * step], &mut jet);
            for a in 0..m {
                (0..m).for_each(|b| gram[[a, b]] += step * jet.d2[a] * jet.d2[b]);
            }
        }
        let s = atom.roughness();
        let ratio = gram.diag().sum() / s.diag().sum();
        assert!(gram.iter().zip(s.iter()).all(|(g, s)| (g - ratio * s).abs() < 1e-4 * ratio));
        // r^3 has the fourth derivative 12 delta, so integrals of products of second derivatives are 12 Z'KZ
        assert!((ratio / 12.0 - 1.0).abs() < 1e-4, "{ratio}");
    }

    #[test]
    fn bad_centres_are_refused() {
        let refused = |centers: Array2<f64>| Duchon::new(centers.view()).unwrap_err().to_string();
        assert!(refused(ndarray::array![[0.0], [1.0]]).contains("at least 3 centres"));
        assert!(refused(ndarray::array![[0.0], [1.0], [2.0], [1.0]]).contains("centers 1 and 3 coincide"));
        assert!(refused(ndarray::array![[0.0], [1.0], [f64::NAN]]).contains("finite"));
        // a circle in the plane: x^2 + y^2 - 1 vanishes on it
        let circle = Array2::from_shape_fn((12, 2), |(i, a)| if a == 0 { (i as f64).cos() } else { (i as f64).sin() });
        assert!(refused(circle).contains("do not determine the 6 polynomials"));
    }
}
