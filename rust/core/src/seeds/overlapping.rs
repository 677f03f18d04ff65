//! First guesses for atoms that are active independently of each other, several on a row.
//!
//! A row is then a sum of points on several atoms, and no cluster of rows lies in one atom's subspace. But in whitened
//! components, the atoms' subspaces are independent, and the squared radius of a row within one of them is either small or
//! one: its fourth moment is not that of a Gaussian, or of a mixture with other subspaces, which is nearer to it. So the
//! subspaces are found by rotations between pairs of components, each to the angle at which fourth moments are farthest from
//! the Gaussian one: first of every component alone (independent component analysis, which any basis of an atom's subspace
//! satisfies), then, with components grouped by which are small on the same rows, of whole groups (independent subspaces).
//!
//! A circle that half of the rows use has just the fourth moment of a Gaussian. So some starts go on by the mean radius, which is
//! `sqrt(activity)` of its root mean square, and that of a Gaussian plane at an activity of pi/4 alone. And fourth moments of few
//! rows in many dimensions have spurious optima. So there are starts by bounded contrasts as well (`fixed_point`), which have fewer,
//! and of which the narrow ones tell a component that is zero on half of the rows.

use super::fixed_point::components_alone;
use super::grouping::togetherness;
use super::radii::{radial_contrast, separate_radii};
use crate::linalg::dot;
use ndarray::{Array1, Array2, ArrayView2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Rotations tried first for each pair of components, over half a turn.
const ANGLES: usize = 64;
/// Bound on sweeps over all pairs; a handful settle most starts.
const SWEEPS: usize = 64;
/// A sweep whose largest rotation is below this is the last.
const SETTLED: f64 = 1e-4;
/// Random starts: the contrast has local optima.
const STARTS: usize = 6;
/// Random starts that go by the mean radius from the beginning.
const RADIAL_STARTS: usize = 4;
/// Part of its dimensions that a group shares with another one that is the same.
const SAME: f64 = 0.9;

/// Rows times squared components beyond which pairs are not rotated one by one: a sweep costs about that, and fourth moments
/// of that many pairs have spurious optima.
const PAIRS_TO: usize = 1_000_000;

/// Whether there are too many components to rotate them by pairs.
pub(super) fn are_many(n_rows: usize, sizes: &[usize]) -> bool {
    let d: usize = sizes.iter().sum();
    n_rows.saturating_mul(d * d) > PAIRS_TO
}

/// Rows in one atom's subspace, and where they use it.
pub struct Component {
    /// n x d, of unit mean square over the rows that use the atom.
    pub scores: Array2<f64>,
    /// Radius of each row relative to a typical one of those that use the atom.
    pub radius: Array1<f64>,
    pub active: Vec<bool>,
}

/// Sets of one component for each of the `sizes`, from leading principal components of unit variance (n x the sum of sizes):
/// one set from every start, without those that came out the same; none when interrupted.
pub fn components(
    whitened: ArrayView2<'_, f64>,
    sizes: &[usize],
    random_state: u64,
    interrupted: &dyn Fn() -> bool,
) -> Vec<Vec<Component>> {
    let groups = Groups::new(sizes);
    let seed = |start: usize, bits: u32| random_state.wrapping_add((start as u64) << bits);
    let mut sets = Vec::new();
    let Some(alone) = components_alone(whitened, random_state, interrupted) else { return Vec::new() };
    for (_, y) in alone {
        sets.push(grouped(y.rows().into_iter().map(|row| row.to_vec()).collect(), sizes));
    }
    if !are_many(whitened.nrows(), sizes) {
        // columns are components: contiguous in memory, since rotations run along them
        let y: Rotated = whitened.columns().into_iter().map(|c| c.to_vec()).collect();
        let started = (0..2 * STARTS).map(|start| groups.by_moments(y.clone(), start, seed(start, 40)));
        let by_moments = groups.ranked(started.collect(), contrast);
        // the most promising by fourth moments, and starts of their own, by the other contrast
        let started = (0..=RADIAL_STARTS).map(|start| groups.by_radii(by_moments[0].clone(), start, seed(start, 48)));
        let by_radii = groups.ranked(started.collect(), radial_contrast);
        sets.extend(by_moments.into_iter().chain(by_radii));
    }
    let mut distinct: Vec<Rotated> = Vec::new();
    for y in sets {
        if !distinct.iter().any(|other| groups.are_same(other, &y)) {
            distinct.push(y);
        }
    }
    distinct.iter().map(|y| groups.components(y)).collect()
}

/// Components, one after the other.
type Rotated = Vec<Vec<f64>>;

/// Which components belong together.
struct Groups<'a> {
    sizes: &'a [usize],
    /// The group of each component, and the first component of each group.
    group: Vec<usize>,
    starts: Vec<usize>,
}

impl<'a> Groups<'a> {
    fn new(sizes: &'a [usize]) -> Self {
        let group = sizes.iter().enumerate().flat_map(|(g, d)| std::iter::repeat_n(g, *d)).collect();
        let starts = sizes.iter().scan(0, |end, d| Some(std::mem::replace(end, *end + d))).collect();
        Self { sizes, group, starts }
    }

    fn of(&self, y: &'a [Vec<f64>]) -> impl Iterator<Item = &'a [Vec<f64>]> + use<'a, '_> {
        self.starts.iter().zip(self.sizes).map(|(start, d)| &y[*start..start + d])
    }

    fn components(&self, y: &[Vec<f64>]) -> Vec<Component> {
        let scores = |of: &[Vec<f64>]| Array2::from_shape_fn((of[0].len(), of.len()), |(i, c)| of[c][i]);
        self.of(y).map(|of| component(scores(of).view())).collect()
    }

    /// Whether every group of one lies in a group of the other, but for a small part.
    fn are_same(&self, y: &[Vec<f64>], other: &[Vec<f64>]) -> bool {
        let shared = |a: &[Vec<f64>], b: &[Vec<f64>]| -> f64 {
            let n = a[0].len() as f64;
            a.iter().flat_map(|u| b.iter().map(move |v| (dot(u, v) / n).powi(2))).sum()
        };
        self.of(y).all(|a| self.of(other).any(|b| a.len() == b.len() && shared(a, b) > SAME * a.len() as f64))
    }

    /// By the sum of a contrast over groups, largest first. Starts that ended at one optimum agree to what a sweep leaves, and are
    /// one.
    fn ranked(&self, found: Vec<Rotated>, contrast: impl Fn(&[Vec<f64>]) -> f64) -> Vec<Rotated> {
        let mut found: Vec<(f64, Rotated)> = found.into_iter().map(|y| (self.of(&y).map(&contrast).sum(), y)).collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.dedup_by(|a, b| (a.0 - b.0).abs() <= SETTLED * (1.0 + b.0.abs()));
        found.into_iter().map(|(_, y)| y).collect()
    }

    /// Half of the starts go through components alone, half do not: either has optima that the other has not.
    fn by_moments(&self, mut y: Rotated, start: usize, seed: u64) -> Rotated {
        if start > 1 {
            scramble(&mut y, &mut ChaCha8Rng::seed_from_u64(seed));
        }
        if start % 2 == 0 {
            let alone: Vec<usize> = (0..y.len()).collect();
            let ones = vec![1; y.len()];
            separate(&mut y, &alone, &ones);
            y = grouped(y, self.sizes);
        }
        separate(&mut y, &self.group, self.sizes);
        y
    }

    fn by_radii(&self, mut y: Rotated, start: usize, seed: u64) -> Rotated {
        if start > 0 {
            scramble(&mut y, &mut ChaCha8Rng::seed_from_u64(seed));
        }
        separate_radii(&mut y, &self.group, self.sizes);
        y
    }
}

/// A random rotation, made of plane rotations of all pairs.
fn scramble(y: &mut [Vec<f64>], rng: &mut ChaCha8Rng) {
    for a in 0..y.len() {
        for b in a + 1..y.len() {
            rotate(y, a, b, rng.random::<f64>() * std::f64::consts::TAU);
        }
    }
}

/// Rotates components a < b.
pub(super) fn rotate(y: &mut [Vec<f64>], a: usize, b: usize, angle: f64) {
    let (sin, cos) = angle.sin_cos();
    let (head, tail) = y.split_at_mut(b);
    for (u, v) in head[a].iter_mut().zip(&mut tail[0]) {
        (*u, *v) = (cos * *u + sin * *v, cos * *v - sin * *u);
    }
}

/// `(E |y|^4 - d (d + 2))^2` of one group, components in rows: its distance from a Gaussian's.
fn contrast(y: &[Vec<f64>]) -> f64 {
    let n = y[0].len();
    let moment = (0..n).map(|i| y.iter().map(|c| c[i] * c[i]).sum::<f64>().powi(2)).sum::<f64>() / n as f64;
    (moment - gaussian(y.len())).powi(2)
}

fn gaussian(d: usize) -> f64 {
    (d * (d + 2)) as f64
}

/// Components in an order that puts those which are small on the same rows into one group.
fn grouped(y: Rotated, sizes: &[usize]) -> Rotated {
    let d = y.len();
    let together = togetherness(&Array2::from_shape_fn((d, y[0].len()), |(c, i)| y[c][i]));
    let mut left: Vec<usize> = (0..d).collect();
    // large groups first: what they leave is told apart by less
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&g| std::cmp::Reverse(sizes[g]));
    let mut of_group: Vec<Vec<usize>> = vec![Vec::new(); sizes.len()];
    for g in order {
        let strongest = |c: usize| {
            let others = (0..left.len()).filter(|&o| o != c).map(|o| together[[left[c], left[o]]]);
            others.fold(f64::NEG_INFINITY, f64::max)
        };
        let first =
            (0..left.len()).max_by(|&a, &b| strongest(a).total_cmp(&strongest(b))).expect("components are left");
        let mut own = vec![left.swap_remove(first)];
        while own.len() < sizes[g] {
            let affinity = |c: usize| own.iter().map(|&o| together[[o, left[c]]]).sum::<f64>();
            let next =
                (0..left.len()).max_by(|&a, &b| affinity(a).total_cmp(&affinity(b))).expect("components are left");
            own.push(left.swap_remove(next));
        }
        of_group[g] = own;
    }
    let mut y: Vec<Option<Vec<f64>>> = y.into_iter().map(Some).collect();
    of_group.into_iter().flatten().map(|c| y[c].take().expect("each component is in one group")).collect()
}

/// Sweeps of plane rotations between groups until they settle.
fn separate(y: &mut [Vec<f64>], group: &[usize], sizes: &[usize]) {
    for _ in 0..SWEEPS {
        let mut largest = 0.0f64;
        for a in 0..y.len() {
            for b in a + 1..y.len() {
                if group[a] != group[b] {
                    let angle = Moments::new(y, group, a, b).best_angle(sizes[group[a]], sizes[group[b]]);
                    rotate(y, a, b, angle);
                    largest = largest.max(angle.abs());
                }
            }
        }
        if largest < SETTLED {
            return;
        }
    }
}

/// The angle of largest contrast between minus and plus a quarter turn: the best of a grid, then sections of its bracket.
pub(super) fn best_angle(contrast: impl Fn(f64) -> f64, angles: usize, sections: usize) -> f64 {
    let step = std::f64::consts::PI / angles as f64;
    let at = |j: usize| (j as f64 - (angles / 2) as f64) * step;
    let tried: Vec<f64> = (0..angles).map(|j| contrast(at(j))).collect();
    let best = (0..angles).max_by(|&i, &j| tried[i].total_cmp(&tried[j]));
    let centre = at(best.expect("a grid has angles"));
    let (mut low, mut high) = (centre - step, centre + step);
    for _ in 0..sections {
        let (first, second) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if contrast(first) < contrast(second) {
            low = first;
        } else {
            high = second;
        }
    }
    let angle = 0.5 * (low + high);
    // nothing moves for a gain that is rounding
    if contrast(angle) > contrast(0.0) * (1.0 + 1e-12) {
        angle
    } else {
        0.0
    }
}

/// What the contrast of two groups depends on when components a and b of them are rotated into each other.
struct Moments {
    /// E s^2 of the rest of either group, s its squared radius.
    rest: [f64; 2],
    /// E s (a a, a b, b b) of either group.
    with_rest: [[f64; 3]; 2],
    /// E a^4, a^3 b, a^2 b^2, a b^3, b^4.
    fourth: [f64; 5],
}

impl Moments {
    fn new(y: &[Vec<f64>], group: &[usize], a: usize, b: usize) -> Self {
        let n = y[a].len();
        let mut out = Self { rest: [0.0; 2], with_rest: [[0.0; 3]; 2], fourth: [0.0; 5] };
        let others = |own: usize| -> Vec<usize> {
            (0..y.len()).filter(|&c| c != a && c != b && group[c] == group[own]).collect()
        };
        let others = [others(a), others(b)];
        let share = 1.0 / n as f64;
        for i in 0..n {
            let (u, v) = (y[a][i], y[b][i]);
            let square = [u * u, u * v, v * v];
            for side in 0..2 {
                let s: f64 = others[side].iter().map(|&c| y[c][i] * y[c][i]).sum();
                out.rest[side] += share * s * s;
                (0..3).for_each(|j| out.with_rest[side][j] += share * s * square[j]);
            }
            let products = [square[0] * square[0], square[0] * square[1], square[0] * square[2], square[1] * square[2]];
            (0..4).for_each(|j| out.fourth[j] += share * products[j]);
            out.fourth[4] += share * square[2] * square[2];
        }
        out
    }

    /// Contrast of both groups after rotating by an angle.
    fn contrast(&self, angle: f64, d: [usize; 2]) -> f64 {
        let (sin, cos) = angle.sin_cos();
        let side = |g: usize, c: f64, s: f64| {
            let w = &self.with_rest[g];
            let f = &self.fourth;
            let mixed = c * c * w[0] + 2.0 * c * s * w[1] + s * s * w[2];
            let fourth = c.powi(4) * f[0]
                + 4.0 * c.powi(3) * s * f[1]
                + 6.0 * c * c * s * s * f[2]
                + 4.0 * c * s.powi(3) * f[3]
                + s.powi(4) * f[4];
            (self.rest[g] + 2.0 * mixed + fourth - gaussian(d[g])).powi(2)
        };
        side(0, cos, sin) + side(1, -sin, cos)
    }

    /// The rotation of largest contrast.
    fn best_angle(&self, da: usize, db: usize) -> f64 {
        best_angle(|angle| self.contrast(angle, [da, db]), ANGLES, 30)
    }
}

impl Component {
    /// Scores and radii relative to those of the active rows; `None` where there are none.
    pub(super) fn new(y: ArrayView2<'_, f64>, active: Vec<bool>) -> Option<Self> {
        let radius = radii(y);
        let mut large: Vec<f64> = radius.iter().zip(&active).filter(|(_, on)| **on).map(|(r, _)| *r).collect();
        large.sort_by(f64::total_cmp);
        let typical = *large.get(large.len() / 2).filter(|r| **r > 0.0)?;
        Some(Self { scores: &y / typical, radius: radius / typical, active })
    }
}

fn radii(y: ArrayView2<'_, f64>) -> Array1<f64> {
    y.rows().into_iter().map(|r| (r.dot(&r) / y.ncols() as f64).sqrt()).collect()
}

/// Radii cut where they fall apart into small and large.
fn component(y: ArrayView2<'_, f64>) -> Component {
    let radius = radii(y);
    let cut = cut_between(&radius);
    Component::new(y, radius.iter().map(|r| *r > cut).collect()).expect("something is above the cut")
}

/// The end of the lower of two classes of numbers of largest variance between them; something is always above it.
fn cut_between(values: &Array1<f64>) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (n, total) = (sorted.len(), sorted.iter().sum::<f64>());
    let (mut below, mut best, mut cut) = (0.0, 0.0, f64::NEG_INFINITY);
    for i in 1..n {
        below += sorted[i - 1];
        let (few, many) = (i as f64, (n - i) as f64);
        let apart = below / few - (total - below) / many;
        let between = few * many * apart * apart;
        if between > best && sorted[i] > sorted[i - 1] {
            // no mean of the two: of neighbouring numbers it may be the larger
            (best, cut) = (between, sorted[i - 1]);
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Circles in orthogonal planes, each on a share of the rows, rotated at random.
    fn circles(n: usize, k: usize, share: f64) -> (Array2<f64>, Vec<Vec<bool>>) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut y: Vec<Vec<f64>> = vec![vec![0.0; n]; 2 * k];
        let mut on = vec![vec![false; n]; k];
        for g in 0..k {
            for i in 0..n {
                if rng.random::<f64>() < share {
                    let (sin, cos) = (rng.random::<f64>() * std::f64::consts::TAU).sin_cos();
                    (y[2 * g][i], y[2 * g + 1][i]) = (cos, sin);
                    on[g][i] = true;
                }
            }
        }
        scramble(&mut y, &mut rng);
        let mut out = Array2::from_shape_fn((n, 2 * k), |(i, c)| y[c][i]);
        for mut c in out.columns_mut() {
            let rms = (c.dot(&c) / n as f64).sqrt();
            c /= rms;
        }
        (out, on)
    }

    /// Rows on which a set's best component agrees with a circle, for the circle where they are fewest, and the set where they are most.
    fn agreement(sets: &[Vec<Component>], on: &[Vec<bool>]) -> usize {
        let rows = |c: &Component, truth: &[bool]| c.active.iter().zip(truth).filter(|(a, b)| a == b).count();
        let best = |set: &Vec<Component>, truth: &Vec<bool>| set.iter().map(|c| rows(c, truth)).max().unwrap();
        sets.iter().map(|set| on.iter().map(|truth| best(set, truth)).min().unwrap()).max().unwrap()
    }

    #[test]
    fn something_is_above_a_cut_between_neighbouring_numbers() {
        // the mean of the two is the larger: it is the even one
        let low = 1.0f64.next_up();
        let values = Array1::from_vec(vec![low, low, low.next_up(), low.next_up()]);
        assert_eq!(0.5 * (low + low.next_up()), low.next_up());
        let cut = cut_between(&values);
        assert_eq!(values.iter().filter(|v| **v > cut).count(), 2);
        assert_eq!(cut_between(&Array1::ones(3)), f64::NEG_INFINITY);
    }

    #[test]
    fn overlapping_circles_are_told_apart() {
        let (rows, on) = circles(800, 4, 0.3);
        let found = agreement(&components(rows.view(), &[2; 4], 0, &|| false), &on);
        assert!(found > 760, "{found}");
    }

    #[test]
    fn many_circles_are_told_apart() {
        let (rows, on) = circles(1500, 24, 0.2);
        assert!(are_many(1500, &[2; 24]));
        let found = agreement(&components(rows.view(), &[2; 24], 0, &|| false), &on);
        assert!(found > 1450, "{found}");
    }

    #[test]
    fn circles_that_half_of_the_rows_use_are_told_apart() {
        let (rows, on) = circles(800, 3, 0.5);
        let found = agreement(&components(rows.view(), &[2; 3], 0, &|| false), &on);
        assert!(found > 760, "{found}");
    }

    #[test]
    fn the_moments_give_the_contrast_of_rotated_components() {
        let (rows, _) = circles(60, 2, 0.5);
        let mut y: Vec<Vec<f64>> = rows.columns().into_iter().map(|c| c.to_vec()).collect();
        let group = [0, 0, 1, 1];
        let moments = Moments::new(&y, &group, 1, 2);
        let angle = 0.7;
        let promised = moments.contrast(angle, [2, 2]);
        rotate(&mut y, 1, 2, angle);
        assert!((contrast(&y[..2]) + contrast(&y[2..]) - promised).abs() < 1e-10);
    }
}
