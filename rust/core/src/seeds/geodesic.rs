//! Coordinates of a sheet that bends back on itself, where no projection tells its rows apart.
//!
//! Distances along the sheet are shortest paths in the graph of nearest neighbours, and classical scaling finds the flat
//! coordinates whose distances they are (Tenenbaum, de Silva and Langford 2000; landmarks after de Silva and Tenenbaum 2004).

use crate::linalg::symmetric_eigen;
use ndarray::{Array1, Array2, ArrayView1};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Rows among which paths run; the others are placed by their distances to these.
const LANDMARKS: usize = 384;
/// Neighbours that a row is linked to, beside two for each dimension: more bridge gaps of the sheet, fewer see its noise.
const NEIGHBOURS: usize = 6;

/// Flat coordinates (n x d) of all rows of `scores`, each column standardised; `order` lists the rows in an order that is
/// their own. `None` where there are too few rows.
pub fn embedding(scores: &Array2<f64>, order: &[usize], d: usize) -> Option<Array2<f64>> {
    let n = order.len();
    let landmarks: Vec<usize> = order.iter().copied().step_by(n.div_ceil(LANDMARKS).max(1)).collect();
    let m = landmarks.len();
    let neighbours = NEIGHBOURS + 2 * d;
    if m <= neighbours {
        return None;
    }
    let apart = |a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>| {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
    };
    let straight = Array2::from_shape_fn((m, m), |(i, j)| apart(scores.row(landmarks[i]), scores.row(landmarks[j])));
    let paths = shortest_paths(&links(&straight, neighbours));
    let squares = paths.mapv(|v| v * v);
    let mean = squares.mean_axis(ndarray::Axis(0))?;
    let grand = mean.mean()?;
    let inner = Array2::from_shape_fn((m, m), |(i, j)| -0.5 * (squares[[i, j]] - mean[i] - mean[j] + grand));
    let (values, vectors) = symmetric_eigen(inner.view());

    let mut out = Array2::zeros((n, d));
    let mut near: Vec<(f64, usize)> = Vec::new();
    for (row, mut place) in scores.rows().into_iter().zip(out.rows_mut()) {
        near.clear();
        near.extend(landmarks.iter().enumerate().map(|(l, &i)| (apart(row, scores.row(i)), l)));
        near.select_nth_unstable_by(neighbours, |a, b| a.0.total_cmp(&b.0));
        let near = &near[..neighbours];
        let along = |l: usize| near.iter().map(|(first, via)| first + paths[[*via, l]]).fold(f64::INFINITY, f64::min);
        let gap: Array1<f64> = (0..m).map(|l| mean[l] - along(l).powi(2)).collect();
        for (axis, place) in place.iter_mut().enumerate() {
            let at = m - 1 - axis;
            *place = 0.5 * vectors.column(at).dot(&gap) / values[at].max(f64::MIN_POSITIVE).sqrt();
        }
    }
    for mut column in out.columns_mut() {
        let mut standard = crate::atoms::standardised(column.view());
        if standard.iter().map(|v| v * v * v).sum::<f64>() < 0.0 {
            standard.mapv_inplace(|v| -v);
        }
        column.assign(&standard);
    }
    out.iter().all(|v| v.is_finite()).then_some(out)
}

/// For each row its links with their lengths, in both directions: its nearest neighbours, and the shortest tree through all
/// rows, so that every row can be reached.
fn links(straight: &Array2<f64>, neighbours: usize) -> Vec<Vec<(usize, f64)>> {
    let m = straight.nrows();
    let mut linked = Array2::from_elem((m, m), false);
    for i in 0..m {
        let mut others: Vec<usize> = (0..m).filter(|&j| j != i).collect();
        others.select_nth_unstable_by(neighbours - 1, |&a, &b| straight[[i, a]].total_cmp(&straight[[i, b]]));
        others[..neighbours].iter().for_each(|&j| linked[[i, j]] = true);
    }
    // Prim: the row nearest to the tree enters next
    let mut nearest: Vec<(f64, usize)> = (0..m).map(|j| (straight[[0, j]], 0)).collect();
    let mut inside = vec![false; m];
    inside[0] = true;
    for _ in 1..m {
        let next = (0..m).filter(|&j| !inside[j]).min_by(|&a, &b| nearest[a].0.total_cmp(&nearest[b].0));
        let Some(next) = next else { break };
        inside[next] = true;
        linked[[next, nearest[next].1]] = true;
        for j in (0..m).filter(|&j| !inside[j]) {
            if straight[[next, j]] < nearest[j].0 {
                nearest[j] = (straight[[next, j]], next);
            }
        }
    }
    let links =
        |i: usize| (0..m).filter(|&j| linked[[i, j]] || linked[[j, i]]).map(|j| (j, straight[[i, j]])).collect();
    (0..m).map(links).collect()
}

/// A length that orders as numbers do.
#[derive(PartialEq)]
struct Length(f64);

impl Eq for Length {}

impl PartialOrd for Length {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Length {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Dijkstra from every row.
fn shortest_paths(links: &[Vec<(usize, f64)>]) -> Array2<f64> {
    let m = links.len();
    let mut out = Array2::from_elem((m, m), f64::INFINITY);
    for (from, mut reach) in out.rows_mut().into_iter().enumerate() {
        reach[from] = 0.0;
        let mut heap = BinaryHeap::from([(Reverse(Length(0.0)), from)]);
        while let Some((Reverse(Length(length)), at)) = heap.pop() {
            if length > reach[at] {
                continue;
            }
            for &(next, step) in &links[at] {
                if length + step < reach[next] {
                    reach[next] = length + step;
                    heap.push((Reverse(Length(length + step)), next));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiral_is_unrolled() {
        let n = 900;
        // equal steps along the arc of r = angle
        let angle = |i: usize| (2.0 * (2.0 + 40.0 * i as f64 / n as f64)).sqrt();
        let scores = Array2::from_shape_fn((n, 2), |(i, a)| {
            let t = angle(i);
            t * if a == 0 { t.cos() } else { t.sin() }
        });
        let order: Vec<usize> = (0..n).collect();
        let found = embedding(&scores, &order, 1).unwrap();
        let steps: Vec<f64> = (1..n).map(|i| found[[i, 0]] - found[[i - 1, 0]]).collect();
        let forward = steps.iter().filter(|s| **s > 0.0).count();
        assert!(forward == 0 || forward == n - 1, "{forward}");
    }

    #[test]
    fn a_rolled_sheet_is_flattened() {
        let n = 800;
        let flat = Array2::from_shape_fn((n, 2), |(i, a)| {
            let root = [2f64.sqrt(), 3f64.sqrt()][a];
            ((i + 1) as f64 * root).fract() * [5.0, 2.0][a]
        });
        let scores = Array2::from_shape_fn((n, 3), |(i, a)| match a {
            0 => flat[[i, 0]].cos(),
            1 => flat[[i, 0]].sin(),
            _ => flat[[i, 1]],
        });
        let order: Vec<usize> = (0..n).collect();
        let found = embedding(&scores, &order, 2).unwrap();
        // the longer direction comes first; correlations of standardised columns
        for axis in 0..2 {
            let own = crate::atoms::standardised(flat.column(axis));
            let correlation = own.dot(&found.column(axis)) / n as f64;
            assert!(correlation.abs() > 0.99, "{axis} {correlation}");
        }
    }

    #[test]
    fn separate_pieces_are_bridged_and_few_rows_refused() {
        let scores = Array2::from_shape_fn((60, 1), |(i, _)| i as f64 + if i < 30 { 0.0 } else { 100.0 });
        let order: Vec<usize> = (0..60).collect();
        let found = embedding(&scores, &order, 1).unwrap();
        assert!((1..60).all(|i| (found[[i, 0]] - found[[i - 1, 0]]) * (found[[1, 0]] - found[[0, 0]]) > 0.0));
        assert!(embedding(&scores, &order[..5], 1).is_none());
    }
}
