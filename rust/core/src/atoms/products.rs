//! Bases on flat charts whose columns are products of functions of one coordinate each.

use super::series::{Series, MAX_WIDTH};
use super::BasisJet;
use crate::errors::ShapeError;
use ndarray::{Array1, Array2};
use std::collections::HashMap;

/// Columns `prod_a f_a(t_a)`, with f_a a member of the series of coordinate a.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Products {
    series: Vec<Series>,
    /// For each column, the member that each coordinate contributes.
    columns: Vec<Vec<usize>>,
}

impl Products {
    /// All products of two series that `keep` admits, the first coordinate slowest.
    pub fn of_two(series: [Series; 2], keep: impl Fn(usize, usize) -> bool) -> Result<Self, ShapeError> {
        series.iter().try_for_each(|series| check_width(series.len()))?;
        let kept = || {
            let all = (0..series[0].len()).flat_map(|i| (0..series[1].len()).map(move |j| (i, j)));
            all.filter(|&(i, j)| keep(i, j))
        };
        check_width(kept().count())?;
        let columns = kept().map(|(i, j)| vec![i, j]).collect();
        Ok(Self { series: series.to_vec(), columns })
    }

    /// The degree of each column in the coordinates that enter by their powers.
    pub fn degrees(&self) -> Vec<u32> {
        let of = |(series, &index): (&Series, &usize)| match series {
            Series::Powers(_) => index as u32,
            Series::Harmonics(_) => 0,
        };
        self.columns.iter().map(|column| self.series.iter().zip(column).map(of).sum()).collect()
    }

    /// Monomials of `dim` coordinates to a total degree: by degree, and within one by the sequence of their coordinates
    /// (`1; t1, .., td; t1 t1, t1 t2, ..`).
    pub fn monomials(dim: usize, degree: usize) -> Result<Self, ShapeError> {
        // binom(dim + degree, dim) columns
        let width = (1..=dim).fold(1usize, |w, a| w.saturating_mul(degree + a) / a);
        check_width(width)?;
        let mut sequences = vec![vec![]];
        let mut from = 0;
        for _ in 0..degree {
            let to = sequences.len();
            for at in from..to {
                let sequence: Vec<usize> = sequences[at].clone();
                for a in sequence.last().copied().unwrap_or(0)..dim {
                    sequences.push([&sequence[..], &[a]].concat());
                }
            }
            from = to;
        }
        let exponents =
            |sequence: &Vec<usize>| (0..dim).map(|a| sequence.iter().filter(|&&b| b == a).count()).collect();
        Ok(Self { series: vec![Series::Powers(degree); dim], columns: sequences.iter().map(exponents).collect() })
    }

    pub fn width(&self) -> usize {
        self.columns.len()
    }

    fn dim(&self) -> usize {
        self.series.len()
    }

    /// The product of the columns' factors, each differentiated as often as `axes` names its coordinate.
    fn write(&self, tables: &[Vec<[f64; 4]>], axes: &[usize], out: &mut [f64]) {
        let mut orders = [0; MAX_DIM];
        axes.iter().for_each(|&a| orders[a] += 1);
        for (value, column) in out.iter_mut().zip(&self.columns) {
            *value = column.iter().enumerate().map(|(a, &member)| tables[a][member][orders[a]]).product();
        }
    }

    fn tables(&self, t: &[f64]) -> Vec<Vec<[f64; 4]>> {
        self.series.iter().zip(t).map(|(series, &t)| series.table(t)).collect()
    }

    pub fn basis(&self, t: &[f64], phi: &mut [f64]) {
        self.write(&self.tables(t), &[], phi);
    }

    pub fn jet(&self, t: &[f64], out: &mut BasisJet) {
        let (d, m, tables) = (self.dim(), self.width(), self.tables(t));
        self.write(&tables, &[], &mut out.phi);
        for a in 0..d {
            self.write(&tables, &[a], &mut out.d1[a * m..(a + 1) * m]);
            for b in 0..d {
                let at = (a * d + b) * m;
                self.write(&tables, &[a, b], &mut out.d2[at..at + m]);
            }
        }
    }

    pub fn third(&self, t: &[f64], d3: &mut [f64]) {
        let (d, m, tables) = (self.dim(), self.width(), self.tables(t));
        for (at, out) in d3.chunks_exact_mut(m).enumerate() {
            self.write(&tables, &[at / (d * d), at / d % d, at % d], out);
        }
    }

    /// Mean of the products of two columns, each differentiated as often as `orders` says in each coordinate.
    fn mean_products(&self, orders: &[usize]) -> Array2<f64> {
        Array2::from_shape_fn((self.width(), self.width()), |(m, n)| {
            let factor = |a: usize| self.series[a].mean_product(orders[a], self.columns[m][a], self.columns[n][a]);
            (0..self.dim()).map(factor).product()
        })
    }

    /// Mean squared Hessian: `sum_ab E (d_a d_b f)^2`. On a torus that is the mean squared Laplacian.
    pub fn bending(&self) -> Array2<f64> {
        let mut total = self.own_bending();
        for a in 0..self.dim() {
            for b in 0..a {
                let mut orders = vec![0; self.dim()];
                orders[a] += 1;
                orders[b] += 1;
                total.scaled_add(2.0, &self.mean_products(&orders));
            }
        }
        total
    }

    /// The same without the mixed second derivatives.
    pub fn own_bending(&self) -> Array2<f64> {
        let mut total = Array2::zeros((self.width(), self.width()));
        for a in 0..self.dim() {
            let mut orders = vec![0; self.dim()];
            orders[a] = 2;
            total += &self.mean_products(&orders);
        }
        total
    }

    /// Projector on the columns whose factors' orders (frequencies or powers) `chosen` admits.
    pub fn projector(&self, chosen: impl Fn(&[usize]) -> bool) -> Array2<f64> {
        let orders = |column: &[usize]| -> Vec<usize> {
            column.iter().zip(&self.series).map(|(&member, series)| series.order(member)).collect()
        };
        let on: Vec<f64> = self.columns.iter().map(|c| f64::from(u8::from(chosen(&orders(c))))).collect();
        Array2::from_diag(&Array1::from(on))
    }

    /// Q with `d_a Phi = Phi Q`: a motion of coordinate a at unit speed.
    pub fn shift(&self, a: usize) -> Array2<f64> {
        self.derivation(a, None)
    }

    /// Q with `t_b d_a Phi - t_a d_b Phi = Phi Q`: a rotation of two coordinates of monomials.
    pub fn rotation(&self, a: usize, b: usize) -> Array2<f64> {
        self.derivation(a, Some(b)) - self.derivation(b, Some(a))
    }

    /// Q of the derivative in coordinate a, times another coordinate where one is given.
    fn derivation(&self, a: usize, times: Option<usize>) -> Array2<f64> {
        let place: HashMap<&[usize], usize> = self.columns.iter().enumerate().map(|(m, c)| (&c[..], m)).collect();
        let mut map = Array2::zeros((self.width(), self.width()));
        let shift = self.series[a].shift();
        for (m, column) in self.columns.iter().enumerate() {
            for &(to, _, value) in shift.iter().filter(|entry| entry.1 == column[a]) {
                let mut image = column.clone();
                image[a] = to;
                times.iter().for_each(|&b| image[b] += 1);
                map[[place[&image[..]], m]] += value;
            }
        }
        map
    }
}

/// The most coordinates of a chart of products.
pub(super) const MAX_DIM: usize = 8;

fn check_width(width: usize) -> Result<(), ShapeError> {
    if width > MAX_WIDTH {
        return Err(ShapeError::value(format!("the basis would have {width} columns, more than {MAX_WIDTH}")));
    }
    Ok(())
}
