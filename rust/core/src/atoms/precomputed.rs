//! A basis of the caller's own, as a table: quintic splines through its values on a grid.

use super::series::wrap;
use super::{grid, Atom, BasisJet, ChartFactor};
use crate::errors::{check_finite, ShapeError};
use crate::linalg::{symmetric_eigen, Cholesky};
use ndarray::{Array2, ArrayView2};
use std::f64::consts::TAU;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Columns `sum_j c_j B_j1(t_1) .. B_jd(t_d)`, with B the quintic B-splines on the knots of each coordinate.
///
/// A coordinate is an angle of a given period, a number between the ends of its knots, or a real number; beyond its knots a
/// real coordinate continues by its second Taylor polynomial, so that nothing explodes where no value was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Precomputed {
    axes: Vec<Axis>,
    /// Axis 0 slowest, columns fastest.
    coefficients: Vec<f64>,
    width: usize,
    roughness: Array2<f64>,
    null: Array2<f64>,
    factors: Vec<ChartFactor>,
}

#[derive(Clone, Debug, PartialEq)]
struct Axis {
    knots: Vec<f64>,
    period: Option<f64>,
    bounded: bool,
}

/// Degree of the splines: the third derivatives of a row are continuous.
const DEGREE: usize = 5;
/// Splines that are not zero at a point.
const ACTIVE: usize = DEGREE + 1;
/// A row costs ACTIVE^d products a column.
const MAX_DIM: usize = 3;
/// Points of a search along each axis, at most, in one, two and three dimensions.
const GRID: [usize; MAX_DIM] = [256, 24, 10];
/// Eigenvalues of the roughness below this part of the largest are zero: a caller's quadrature is not exact.
const NULL: f64 = 1e-10;

impl Axis {
    fn new(index: usize, knots: Vec<f64>, period: Option<f64>, bounded: bool) -> Result<Self, ShapeError> {
        let bad = |what: String| Err(ShapeError::value(format!("knots[{index}] {what}")));
        if knots.len() < 2 * ACTIVE {
            return bad(format!("has {} entries: quintic splines need at least {}", knots.len(), 2 * ACTIVE));
        }
        if knots.iter().any(|v| !v.is_finite()) || knots.windows(2).any(|pair| pair[0] > pair[1]) {
            return bad("must be finite and not decrease".into());
        }
        if bounded && period.is_some() {
            return bad("belongs to an angle, which cannot be bounded".into());
        }
        let axis = Self { knots, period, bounded };
        let (low, high) = axis.range();
        match period {
            Some(p) if !(p > 0.0 && p.is_finite() && (high - low - p).abs() <= 1e-9 * p) => {
                bad(format!("spans {} but its period is {p}", high - low))
            }
            _ if low >= high => bad(format!("spans nothing: {low} to {high}")),
            _ => Ok(axis),
        }
    }

    fn splines(&self) -> usize {
        self.knots.len() - ACTIVE
    }

    /// Where the splines sum to one.
    fn range(&self) -> (f64, f64) {
        (self.knots[DEGREE], self.knots[self.splines()])
    }

    /// The first spline that is not zero at t, and the values and three derivatives of it and the next five.
    fn row(&self, t: f64) -> (usize, [[f64; ACTIVE]; 4]) {
        let (low, high) = self.range();
        let inside = match self.period {
            Some(period) => low + wrap(t - low, period),
            None => t.clamp(low, high),
        };
        // the last span that begins at or before the point, and has a length
        let after = self.knots[DEGREE + 1..self.splines()].partition_point(|k| *k <= inside);
        let span = DEGREE + after;
        let mut rows = self.derivatives(span, inside);
        let beyond = if self.period.is_some() { 0.0 } else { t - inside };
        if beyond != 0.0 {
            for j in 0..ACTIVE {
                let [value, slope, bend] = [rows[0][j], rows[1][j], rows[2][j]];
                rows[0][j] = value + beyond * (slope + 0.5 * beyond * bend);
                rows[1][j] = slope + beyond * bend;
                rows[3][j] = 0.0;
            }
        }
        (span - DEGREE, rows)
    }

    /// Cox and de Boor's recurrence on one span: a derivative of degree p is a difference of degree p - 1.
    fn derivatives(&self, span: usize, t: f64) -> [[f64; ACTIVE]; 4] {
        // values of all degrees: of degree p, the p + 1 splines that end with number `span`
        let mut degrees = [[0.0; ACTIVE]; ACTIVE];
        degrees[0][0] = 1.0;
        for p in 1..=DEGREE {
            for j in 0..=p {
                let first = span + j - p;
                let mut value = 0.0;
                if j > 0 {
                    value += self.share(first, p, t) * degrees[p - 1][j - 1];
                }
                if j < p {
                    value += (1.0 - self.share(first + 1, p, t)) * degrees[p - 1][j];
                }
                degrees[p][j] = value;
            }
        }
        let mut out = [[0.0; ACTIVE]; 4];
        for (order, out) in out.iter_mut().enumerate() {
            let mut row = degrees[DEGREE - order];
            for p in DEGREE - order + 1..=DEGREE {
                let mut raised = [0.0; ACTIVE];
                for j in 0..=p {
                    let first = span + j - p;
                    let left = if j > 0 { row[j - 1] / self.length(first, p) } else { 0.0 };
                    let right = if j < p { row[j] / self.length(first + 1, p) } else { 0.0 };
                    raised[j] = p as f64 * (left - right);
                }
                row = raised;
            }
            *out = row;
        }
        out
    }

    /// How far t lies along the support of a spline of degree p - 1.
    fn share(&self, first: usize, p: usize, t: f64) -> f64 {
        (t - self.knots[first]) / self.length(first, p)
    }

    fn length(&self, first: usize, p: usize) -> f64 {
        self.knots[first + p] - self.knots[first]
    }

    fn factor(&self) -> ChartFactor {
        let (lo, hi) = self.range();
        match self.period {
            Some(period) => ChartFactor::Circle { period },
            None if self.bounded => ChartFactor::Interval { lo, hi },
            None => ChartFactor::Line,
        }
    }

    /// First guesses between the ends do not reach them, where they would start held.
    fn inside(&self, share: f64) -> f64 {
        /// Part of the interval left out on either side.
        const MARGIN: f64 = 0.01;
        let (low, high) = self.range();
        low + (high - low) * share.clamp(MARGIN, 1.0 - MARGIN)
    }
}

impl Precomputed {
    /// `knots` for each coordinate, its period or `None`, and whether it is bounded by its knots; the coefficients with the
    /// first coordinate slowest and the columns fastest, and the roughness Gram (M x M).
    pub fn new(
        knots: Vec<Vec<f64>>,
        periods: Vec<Option<f64>>,
        bounded: &[bool],
        coefficients: Vec<f64>,
        roughness: ArrayView2<'_, f64>,
    ) -> Result<Self, ShapeError> {
        if knots.is_empty() || knots.len() > MAX_DIM || knots.len() != periods.len() {
            return Err(ShapeError::value(format!(
                "a table has between 1 and {MAX_DIM} coordinates, each with a period or none; got {} and {} periods",
                knots.len(),
                periods.len()
            )));
        }
        if bounded.len() != knots.len() {
            return Err(ShapeError::shape("bounded", &[bounded.len()], &[knots.len()]));
        }
        let axes = knots.into_iter().zip(periods).enumerate();
        let axes: Vec<Axis> =
            axes.map(|(i, (knots, period))| Axis::new(i, knots, period, bounded[i])).collect::<Result<_, _>>()?;
        let width = roughness.nrows();
        let entries = axes.iter().map(Axis::splines).product::<usize>() * width;
        if width == 0 || coefficients.len() != entries {
            return Err(ShapeError::shape("coefficients", &[coefficients.len()], &[entries]));
        }
        if let Some(at) = coefficients.iter().position(|v| !v.is_finite()) {
            return Err(ShapeError::value(format!("coefficients must be finite; entry {at} is {}", coefficients[at])));
        }
        let (roughness, null) = checked_gram(roughness)?;
        let factors = axes.iter().map(Axis::factor).collect();
        Ok(Self { axes, coefficients, width, roughness, null, factors })
    }

    /// Calls `f(weights of each axis' orders, columns)` for every product of splines that is not zero at t.
    fn each(&self, t: &[f64], mut f: impl FnMut(&[[f64; 4]], &[f64])) {
        let d = self.axes.len();
        let rows: Vec<(usize, [[f64; ACTIVE]; 4])> = self.axes.iter().zip(t).map(|(axis, &t)| axis.row(t)).collect();
        let mut weights = vec![[0.0; 4]; d];
        for index in 0..ACTIVE.pow(d as u32) {
            let mut at = 0;
            let mut rest = index;
            for (a, (first, row)) in rows.iter().enumerate() {
                let j = rest % ACTIVE;
                rest /= ACTIVE;
                weights[a] = [row[0][j], row[1][j], row[2][j], row[3][j]];
                at = at * self.axes[a].splines() + first + j;
            }
            f(&weights, &self.coefficients[at * self.width..(at + 1) * self.width]);
        }
    }
}

/// The product of the axes' weights, each differentiated as often as `axes` names it.
fn weight(weights: &[[f64; 4]], axes: &[usize]) -> f64 {
    weights.iter().enumerate().map(|(a, w)| w[axes.iter().filter(|&&b| b == a).count()]).product()
}

fn add(factor: f64, columns: &[f64], out: &mut [f64]) {
    crate::linalg::axpy(factor, columns, out);
}

/// A caller's Gram made exactly symmetric and positive semi-definite, and the projector on its null space.
fn checked_gram(gram: ArrayView2<'_, f64>) -> Result<(Array2<f64>, Array2<f64>), ShapeError> {
    let m = gram.nrows();
    if gram.ncols() != m {
        return Err(ShapeError::shape("roughness", gram.shape(), &[m, m]));
    }
    check_finite("roughness", gram)?;
    let largest = gram.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let tolerance = f64::EPSILON.sqrt() * largest * m as f64;
    for a in 0..m {
        for b in 0..a {
            let (lower, upper) = (gram[[a, b]], gram[[b, a]]);
            if (lower - upper).abs() > tolerance {
                return Err(ShapeError::value(format!(
                    "roughness must be symmetric; entry ({a}, {b}) is {lower} and ({b}, {a}) is {upper}"
                )));
            }
        }
    }
    let symmetric = (&gram + &gram.t()) * 0.5;
    let (values, vectors) = symmetric_eigen(symmetric.view());
    if values[0] < -tolerance {
        return Err(ShapeError::value(format!(
            "roughness must be positive semi-definite; its smallest eigenvalue is {}",
            values[0]
        )));
    }
    let from = |f: &dyn Fn(f64) -> f64| {
        let scaled = &vectors * &values.mapv(f);
        scaled.dot(&vectors.t())
    };
    let is_null = |v: f64| v <= NULL * values[m - 1];
    let clean = from(&|v| if is_null(v) { 0.0 } else { v });
    Ok(((&clean + &clean.t()) * 0.5, from(&|v| f64::from(u8::from(is_null(v))))))
}

impl Atom for Precomputed {
    fn kind(&self) -> &'static str {
        "precomputed"
    }
    fn key(&self) -> String {
        let mut hasher = DefaultHasher::new();
        let mut add = |v: f64| v.to_bits().hash(&mut hasher);
        for axis in &self.axes {
            axis.knots.iter().chain(&axis.period).for_each(|v| add(*v));
            add(f64::from(u8::from(axis.bounded)));
        }
        self.coefficients.iter().chain(&self.roughness).for_each(|v| add(*v));
        format!("precomputed:{}:{}:{:x}", self.axes.len(), self.width, hasher.finish())
    }
    fn width(&self) -> usize {
        self.width
    }
    fn factors(&self) -> &[ChartFactor] {
        &self.factors
    }
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        phi.fill(0.0);
        self.each(t, |w, columns| add(weight(w, &[]), columns, phi));
    }
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        let (d, m) = (self.axes.len(), self.width);
        out.phi.fill(0.0);
        out.d1.fill(0.0);
        out.d2.fill(0.0);
        self.each(t, |w, columns| {
            add(weight(w, &[]), columns, &mut out.phi);
            for a in 0..d {
                add(weight(w, &[a]), columns, &mut out.d1[a * m..(a + 1) * m]);
                for b in 0..d {
                    add(weight(w, &[a, b]), columns, &mut out.d2[(a * d + b) * m..(a * d + b + 1) * m]);
                }
            }
        });
    }
    fn third(&self, t: &[f64], d3: &mut [f64]) {
        let (d, m) = (self.axes.len(), self.width);
        d3.fill(0.0);
        self.each(t, |w, columns| {
            for (index, out) in d3.chunks_exact_mut(m).enumerate() {
                add(weight(w, &[index / (d * d), index / d % d, index % d]), columns, out);
            }
        });
    }
    fn roughness(&self) -> Array2<f64> {
        self.roughness.clone()
    }
    fn null_projector(&self) -> Array2<f64> {
        self.null.clone()
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        for ((t, s), axis) in t.iter_mut().zip(step).zip(&self.axes) {
            *t += s;
            if let Some(period) = axis.period {
                *t = wrap(*t, period);
            } else if axis.bounded {
                let (low, high) = axis.range();
                *t = t.clamp(low, high);
            }
        }
    }
    /// None: a table knows no motion of its own.
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
        self.axes.iter().map(|axis| 1 + usize::from(axis.period.is_some())).sum()
    }
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        let mut at = 0;
        for (t, axis) in t.iter_mut().zip(&self.axes) {
            *t = match axis.period {
                Some(period) => wrap(scores[at + 1].atan2(scores[at]) * period / TAU, period),
                // a uniform coordinate has a standard deviation of its length over sqrt 12
                None if axis.bounded => axis.inside(0.5 + scores[at] / 12f64.sqrt()),
                None => scores[at],
            };
            at += 1 + usize::from(axis.period.is_some());
        }
    }
    /// The basis does not turn with its coordinates, so where an angle begins and which way a coordinate runs matter: of
    /// all, those under which the columns explain the scores best.
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        /// Origins of an angle that are tried.
        const TURNS: usize = 8;
        let plain = super::each_seed(self, scores);
        let ways: Vec<usize> = self.axes.iter().map(|axis| if axis.period.is_some() { 2 * TURNS } else { 2 }).collect();
        let placed = |mut way: usize| {
            let mut coords = plain.clone();
            for ((mut column, axis), ways) in coords.columns_mut().into_iter().zip(&self.axes).zip(&ways) {
                let (sign, turn) = (if way % 2 == 0 { 1.0 } else { -1.0 }, (way % ways / 2) as f64 / TURNS as f64);
                way /= ways;
                column.mapv_inplace(|t| match axis.period {
                    Some(period) => wrap(sign * t + turn * period, period),
                    None if axis.bounded && sign < 0.0 => axis.range().0 + axis.range().1 - t,
                    None => sign * t,
                });
            }
            coords
        };
        let all = (0..ways.iter().product()).map(placed);
        let scored = all.map(|coords| (self.unexplained(&coords, scores), coords));
        scored.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(plain.clone(), |best| best.1)
    }
    fn search_grid(&self) -> Array2<f64> {
        let along = |axis: &Axis| {
            let (low, high) = axis.range();
            let points = axis.splines().min(GRID[self.axes.len() - 1]);
            // a search that starts at an end starts held: the middles of equal pieces
            let first = if axis.bounded { 0.5 } else { 0.0 };
            let intervals = if axis.period.is_some() || axis.bounded { points } else { points - 1 };
            (0..points).map(|j| low + (high - low) * (j as f64 + first) / intervals as f64).collect()
        };
        let mut points = grid::product(&self.axes.iter().map(along).collect::<Vec<_>>());
        let still = vec![0.0; self.axes.len()];
        points
            .rows_mut()
            .into_iter()
            .for_each(|mut t| self.advance(t.as_slice_mut().expect("standard layout"), &still));
        points
    }
}

impl Precomputed {
    /// The part of the scores that a least-squares fit by the columns leaves.
    fn unexplained(&self, coords: &Array2<f64>, scores: &Array2<f64>) -> f64 {
        /// Relative ridge.
        const RIDGE: f64 = 1e-6;
        let mut phi = Array2::zeros((coords.nrows(), self.width));
        for (t, mut row) in coords.rows().into_iter().zip(phi.rows_mut()) {
            self.basis(t.as_slice().expect("standard layout"), row.as_slice_mut().expect("standard layout"));
        }
        let mut gram = phi.t().dot(&phi);
        let ridge = RIDGE * gram.diag().sum() / self.width as f64;
        gram.diag_mut().mapv_inplace(|v| v + ridge);
        let moment = phi.t().dot(scores);
        let Some(factor) = Cholesky::new(gram.view()) else { return f64::INFINITY };
        let mut solved = moment.clone();
        factor.solve(&mut solved.view_mut());
        -solved.iter().zip(&moment).map(|(a, b)| a * b).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::checks;
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    fn clamped(inner: &[f64]) -> Vec<f64> {
        let (first, last) = (inner[0], inner[inner.len() - 1]);
        [vec![first; DEGREE], inner.to_vec(), vec![last; DEGREE]].concat()
    }

    fn periodic(n: usize, period: f64) -> Vec<f64> {
        (0..n + 1 + 2 * DEGREE).map(|j| period * (j as f64 - DEGREE as f64) / n as f64).collect()
    }

    /// Pseudo-random coefficients; those of a periodic axis repeat.
    fn table(axes: &[(Vec<f64>, Option<f64>)], width: usize) -> Precomputed {
        with_ends(axes, &vec![false; axes.len()], width)
    }

    fn with_ends(axes: &[(Vec<f64>, Option<f64>)], bounded: &[bool], width: usize) -> Precomputed {
        let splines: Vec<usize> = axes.iter().map(|(knots, _)| knots.len() - ACTIVE).collect();
        let total: usize = splines.iter().product();
        let mut coefficients = Vec::new();
        for index in 0..total {
            let mut rest = index;
            let mut at = vec![0; splines.len()];
            for a in (0..splines.len()).rev() {
                let count = splines[a];
                let j = rest % count;
                rest /= count;
                at[a] = if axes[a].1.is_some() { j % (count - DEGREE) } else { j };
            }
            let name = at.iter().fold(1.0, |n, j| 7.3 * n + *j as f64);
            coefficients.extend((0..width).map(|m| (name * (m + 1) as f64).sin()));
        }
        let (knots, periods) = axes.iter().cloned().unzip();
        Precomputed::new(knots, periods, bounded, coefficients, Array2::<f64>::eye(width).view()).unwrap()
    }

    fn tables() -> Vec<Precomputed> {
        let real = (clamped(&[-2.0, -1.1, -0.3, 0.4, 1.2, 2.0]), None);
        let angle = (periodic(8, 3.0), Some(3.0));
        vec![
            table(std::slice::from_ref(&real), 4),
            table(std::slice::from_ref(&angle), 3),
            table(&[angle.clone(), real.clone()], 3),
            table(&[real.clone(), angle.clone(), angle.clone()], 2),
            with_ends(&[real, angle], &[true, false], 3),
        ]
    }

    /// Distance of a coordinate to the nearest knot.
    fn to_knots(axis: &Axis, t: f64) -> f64 {
        let low = axis.range().0;
        let at = axis.period.map_or(t, |period| low + wrap(t - low, period));
        axis.knots.iter().map(|knot| (at - knot).abs()).fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #[test]
        fn chart(which in 0usize..5, t in proptest::array::uniform3(-1.9f64..1.9)) {
            let table = &tables()[which];
            let t = &t[..table.dim()];
            // at a knot the fifth derivative jumps, which no difference across it shows
            prop_assume!(table.axes.iter().zip(t).all(|(axis, &t)| to_knots(axis, t) > checks::REACH));
            checks::chart(table, t);
        }

        #[test]
        fn splines_sum_to_one(t in -4.0f64..4.0) {
            for table in tables() {
                for axis in &table.axes {
                    let (_, rows) = axis.row(t);
                    prop_assert!((rows[0].iter().sum::<f64>() - 1.0).abs() < 1e-12);
                    (1..4).for_each(|order| assert!(rows[order].iter().sum::<f64>().abs() < 1e-9));
                }
            }
        }
    }

    #[test]
    fn gauge() {
        tables().iter().for_each(|table| checks::gauge(table));
    }

    #[test]
    fn periods_close_and_real_axes_continue() {
        let table = &tables()[2];
        let (mut a, mut b) = (vec![0.0; 3], vec![0.0; 3]);
        table.basis(&[0.4, 0.3], &mut a);
        table.basis(&[6.4, 0.3], &mut b);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12));
        for t in [-2.0, 2.0, 5.0] {
            checks::chart(table, &[0.4, t + 0.1_f64.copysign(t)]);
        }
    }

    #[test]
    fn bounded_axes_end_at_their_knots() {
        let knots = clamped(&[-2.0, -1.1, -0.3, 0.4, 1.2, 2.0]);
        let table = with_ends(&[(knots.clone(), None)], &[true], 2);
        assert_eq!(table.factors(), [ChartFactor::Interval { lo: -2.0, hi: 2.0 }]);
        let mut t = [1.5];
        table.advance(&mut t, &[3.0]);
        assert_eq!(t, [2.0]);
        assert!(table.search_grid().iter().all(|t| t.abs() < 2.0));
        let scores = Array2::from_shape_fn((30, 1), |(i, _)| 0.3 * (i as f64 - 14.5));
        assert!(table.seed_rows(&scores).iter().all(|t| t.abs() < 2.0));
        assert!(table.key() != with_ends(&[(knots, None)], &[false], 2).key());
        let gram = Array2::<f64>::eye(1);
        let angle = Precomputed::new(vec![periodic(8, 3.0)], vec![Some(3.0)], &[true], vec![0.0; 13], gram.view());
        assert!(angle.unwrap_err().to_string().contains("cannot be bounded"));
    }

    #[test]
    fn grams_are_checked_and_cleaned() {
        let new = |gram: Array2<f64>| {
            let width = gram.nrows();
            let knots = clamped(&[0.0, 1.0]);
            Precomputed::new(vec![knots], vec![None], &[false], vec![0.5; 6 * width], gram.view())
        };
        let refused = |gram: Array2<f64>| new(gram).unwrap_err().to_string();
        assert!(refused(array![[1.0, 0.3], [0.0, 1.0]]).contains("symmetric"));
        assert!(refused(array![[1.0, 2.0], [2.0, 1.0]]).contains("positive semi-definite"));
        assert!(refused(array![[1.0, f64::NAN], [2.0, 1.0]]).contains("finite"));
        assert!(refused(array![[1.0, 0.0]]).contains("shape"));
        let clean = new(array![[1.0, 1.0], [1.0, 1.0 + 1e-13]]).unwrap();
        assert!((clean.null_projector() - array![[0.5, -0.5], [-0.5, 0.5]]).iter().all(|v| v.abs() < 1e-9));
        checks::gauge(&clean);
    }
}
