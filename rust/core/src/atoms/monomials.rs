//! Monomials of several real coordinates, and how rotations act on them: what polynomial charts share.

use super::BasisJet;
use ndarray::Array2;
use std::f64::consts::PI;

/// All monomials of `dim` coordinates to a total degree: `1; t1..td; t1t1, t1t2, ..., t1td, t2t2, ...`.
#[derive(Clone, Debug, PartialEq)]
pub struct Monomials {
    dim: usize,
    degree: usize,
    /// Exponents of every column.
    powers: Vec<Vec<usize>>,
}

impl Monomials {
    /// The total degree of each column.
    pub fn degrees(&self) -> Vec<u32> {
        self.powers.iter().map(|p| p.iter().sum::<usize>() as u32).collect()
    }

    /// By degree, and inside a degree in the order of non-decreasing lists of axes.
    pub fn new(dim: usize, degree: usize) -> Self {
        let mut powers = Vec::new();
        let mut lists: Vec<Vec<usize>> = vec![Vec::new()];
        for _ in 0..=degree {
            powers.extend(lists.iter().map(|list| {
                let mut power = vec![0; dim];
                list.iter().for_each(|&a| power[a] += 1);
                power
            }));
            lists = lists
                .into_iter()
                .flat_map(|list| {
                    let from = list.last().copied().unwrap_or(0);
                    (from..dim).map(move |a| [list.clone(), vec![a]].concat())
                })
                .collect();
        }
        Self { dim, degree, powers }
    }

    pub fn width(&self) -> usize {
        self.powers.len()
    }

    /// Exponents of every column.
    pub fn powers(&self) -> &[Vec<usize>] {
        &self.powers
    }

    /// Powers of each coordinate: `table[a][e] = t_a^e`.
    fn table(&self, t: &[f64]) -> Vec<Vec<f64>> {
        t.iter().map(|&t| std::iter::successors(Some(1.0), |p| Some(p * t)).take(self.degree + 1).collect()).collect()
    }

    /// One column differentiated once in each of the listed axes.
    fn derivative(power: &[usize], axes: &[usize], table: &[Vec<f64>]) -> f64 {
        let mut value = 1.0;
        for (a, &e) in power.iter().enumerate() {
            let order = axes.iter().filter(|&&b| b == a).count();
            if order > e {
                return 0.0;
            }
            value *= (e - order + 1..=e).map(|f| f as f64).product::<f64>() * table[a][e - order];
        }
        value
    }

    fn write(&self, axes: &[usize], table: &[Vec<f64>], out: &mut [f64]) {
        out.iter_mut().zip(&self.powers).for_each(|(o, power)| *o = Self::derivative(power, axes, table));
    }

    pub fn basis(&self, t: &[f64], phi: &mut [f64]) {
        self.write(&[], &self.table(t), phi);
    }

    pub fn jet(&self, t: &[f64], out: &mut BasisJet) {
        let (table, m, d) = (self.table(t), self.width(), self.dim);
        self.write(&[], &table, &mut out.phi);
        for a in 0..d {
            self.write(&[a], &table, &mut out.d1[a * m..(a + 1) * m]);
            for b in 0..d {
                self.write(&[a, b], &table, &mut out.d2[(a * d + b) * m..(a * d + b + 1) * m]);
            }
        }
    }

    pub fn third(&self, t: &[f64], d3: &mut [f64]) {
        let (table, m, d) = (self.table(t), self.width(), self.dim);
        for (index, out) in d3.chunks_exact_mut(m).enumerate() {
            self.write(&[index / (d * d), index / d % d, index % d], &table, out);
        }
    }

    /// Q with `dPhi . (t_b e_a - t_a e_b) = Phi Q`, for every pair of axes a < b in lexicographic order.
    pub fn rotations(&self) -> Vec<Array2<f64>> {
        let pairs = pairs(self.dim);
        pairs.map(|(a, b)| self.moved(a, b) - self.moved(b, a)).collect()
    }

    /// Q with `t_to dPhi/dt_from = Phi Q`: a factor of `t_from` becomes one of `t_to`.
    fn moved(&self, from: usize, to: usize) -> Array2<f64> {
        let mut map = Array2::zeros((self.width(), self.width()));
        for (m, power) in self.powers.iter().enumerate().filter(|(_, power)| power[from] > 0) {
            let mut image = power.clone();
            image[from] -= 1;
            image[to] += 1;
            let row = self.powers.iter().position(|p| *p == image).expect("a motion keeps the degree");
            map[[row, m]] += power[from] as f64;
        }
        map
    }
}

/// Pairs of axes a < b in lexicographic order: the planes of rotations.
pub(super) fn pairs(dim: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..dim).flat_map(move |a| (a + 1..dim).map(move |b| (a, b)))
}

/// Velocity `t_b e_a - t_a e_b` of the rotation in the plane of one pair of axes, and its derivative (d x d).
pub(super) fn rotation_velocity(pair: usize, t: &[f64], v: &mut [f64], dv: &mut [f64]) {
    let d = t.len();
    let (a, b) = pairs(d).nth(pair).expect("one generator a pair");
    v.fill(0.0);
    dv.fill(0.0);
    (v[a], v[b]) = (t[b], -t[a]);
    (dv[a * d + b], dv[b * d + a]) = (1.0, -1.0);
}

/// Log-volume of SO(d), `sum_{j=2..d} ln vol(S^{j-1})` with `vol(S^{j-1}) = 2 pi^{j/2} / Gamma(j/2)`.
pub(super) fn ln_rotation_volume(dim: usize) -> f64 {
    (2..=dim)
        .map(|j| {
            // vol(S^{j-1}) = vol(S^{j-3}) 2 pi / (j - 2), from vol(S^1) = 2 pi and vol(S^2) = 4 pi
            let first = if j % 2 == 0 { 2.0 * PI } else { 4.0 * PI };
            let from = if j % 2 == 0 { 4 } else { 5 };
            (first * (from..=j).step_by(2).map(|i| 2.0 * PI / (i - 2) as f64).product::<f64>()).ln()
        })
        .sum()
}

/// Points of a search over coordinates with a standard normal prior: a lattice as wide as rows get, coarser in more dimensions.
pub(super) fn normal_grid(dim: usize) -> Array2<f64> {
    /// Half-width of the lattice in standard deviations; descent goes on from its edge.
    const REACH: f64 = 3.5;
    /// Points along each axis in one, two, ... dimensions.
    const POINTS: [usize; 6] = [29, 15, 9, 6, 5, 4];
    let along = POINTS[(dim - 1).min(POINTS.len() - 1)];
    let step = 2.0 * REACH / (along - 1) as f64;
    Array2::from_shape_fn((along.pow(dim as u32), dim), |(i, a)| {
        (i / along.pow(a as u32) % along) as f64 * step - REACH
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_graded() {
        let two = Monomials::new(2, 3);
        let expected = [[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2], [3, 0], [2, 1], [1, 2], [0, 3]];
        assert!(two.powers().iter().zip(expected).all(|(found, expected)| *found == expected));
        assert_eq!((Monomials::new(3, 2).width(), Monomials::new(1, 5).width()), (10, 6));
    }

    #[test]
    fn volumes_of_rotation_groups() {
        for (dim, volume) in [(1, 1.0), (2, 2.0 * PI), (3, 8.0 * PI * PI), (4, 16.0 * PI.powi(4))] {
            assert!((ln_rotation_volume(dim) - f64::ln(volume)).abs() < 1e-14, "{dim}");
        }
        // vol(S^4) = 8 pi^2 / 3
        let fifth = ln_rotation_volume(5) - ln_rotation_volume(4);
        assert!((fifth - (8.0 * PI * PI / 3.0).ln()).abs() < 1e-14);
    }
}
