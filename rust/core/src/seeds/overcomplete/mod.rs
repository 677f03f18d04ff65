//! First guesses for atoms whose subspaces, all of one size, may have more dimensions together than the data, and of which a row
//! uses few.
//!
//! No rotation makes components of such atoms independent where they have more, nor where whitening raises the noise of directions
//! in which the data are small to their level. But each is still a local optimum of the fourth moment, and a row's
//! fixed point of it is almost always one of the atoms that the row uses (`candidates`). Sparse coding of all rows then tells
//! which candidates are needed, and each is fitted to what the others leave of the rows that use it (`coding`).

mod candidates;
mod coding;
mod moments;

use super::components::whiten;
use super::subspaces::{rows_of_all_lengths, squared_lengths};
use candidates::candidates;
pub use coding::Components;
use coding::Dictionary;
use ndarray::{Array2, Axis};

/// Rows that subspaces are learnt from, at least; and rows for each atom.
const ROWS: usize = 4096;
const ROWS_AN_ATOM: usize = 64;
/// Bound on sweeps of coding and fitting; what is left after a few is for the fit itself.
const SWEEPS: usize = 16;
/// Sweeps before the least needed subspaces go, and the part of them that stays in each sweep.
const ALL_STAY: usize = 2;
const STAY: f64 = 0.8;
/// Subspaces beyond which those that come to fit the same are looked for; of fewer the fit's other starts make up for one.
const MANY: usize = 64;
/// A sweep that changes the noise by less, with as many subspaces as wanted, is the last.
const SETTLED: f64 = 1e-3;
/// The part of the rows' variance, one, that is noise before any of it is explained.
const FIRST_NOISE: f64 = 0.3;

/// `count` components of d dimensions from the scores of centred rows on all their principal components (n x r); `None` when
/// interrupted, or where there are too few rows or columns to tell.
pub(super) fn components(
    scores: &Array2<f64>,
    (count, d): (usize, usize),
    random_state: u64,
    interrupted: &dyn Fn() -> bool,
) -> Option<Components> {
    let scores = in_their_unit(scores)?;
    let r = scores.ncols();
    let sample = rows_of_all_lengths(&squared_lengths(scores.view()), ROWS.max(ROWS_AN_ATOM * count));
    // two subspaces have to fit in
    if sample.len() <= r || r < 2 * d {
        return None;
    }
    let mut rows = scores.select(Axis(0), &sample);
    shorten(&mut rows);
    let found = candidates(&rows, (count, d), random_state, interrupted)?;
    let found = learnt(&rows, found, (count, d), interrupted)?.read(&scores, interrupted)?;
    (found.len() == count).then_some(found)
}

/// Scores of unit mean square, without the columns that are rounding of others; `None` where all are.
fn in_their_unit(scores: &Array2<f64>) -> Option<Array2<f64>> {
    let mut whitened = scores.clone();
    let all: Vec<usize> = (0..scores.nrows()).collect();
    whiten(&mut whitened, &all);
    let kept: Vec<usize> = (0..scores.ncols()).filter(|&c| whitened.column(c).iter().any(|v| *v != 0.0)).collect();
    let largest = kept.iter().flat_map(|&c| scores.column(c)).fold(0.0f64, |m, v| m.max(v.abs()));
    if largest == 0.0 {
        return None;
    }
    let mut own = Array2::from_shape_fn((scores.nrows(), kept.len()), |(i, c)| scores[[i, kept[c]]] / largest);
    let unit = (own.iter().map(|v| v * v).sum::<f64>() / own.len() as f64).sqrt();
    own /= unit;
    Some(own)
}

/// Rows longer than so many times the median get that length: a few outliers make subspaces of their own.
fn shorten(rows: &mut Array2<f64>) {
    const LONGEST: f64 = 2.0;
    let lengths: Vec<f64> = rows.rows().into_iter().map(|row| row.dot(&row).sqrt()).collect();
    let mut sorted = lengths.clone();
    sorted.sort_by(f64::total_cmp);
    let longest = LONGEST * sorted[sorted.len() / 2];
    for (mut row, length) in rows.rows_mut().into_iter().zip(lengths) {
        if length > longest && longest > 0.0 {
            row *= longest / length;
        }
    }
}

/// The `count` subspaces that explain the rows with the fewest of them a row.
fn learnt(
    rows: &Array2<f64>,
    found: Vec<Array2<f64>>,
    (count, d): (usize, usize),
    interrupted: &dyn Fn() -> bool,
) -> Option<Dictionary> {
    let mut dictionary = Dictionary::new(found, d, FIRST_NOISE);
    for sweep in 0..SWEEPS {
        if interrupted() {
            return None;
        }
        let before = dictionary.noise;
        let mut code = dictionary.code(rows.view(), interrupted)?;
        dictionary.fit(&mut code);
        let settled = dictionary.len() == count && (dictionary.noise - before).abs() < SETTLED * before;
        if sweep >= ALL_STAY {
            if settled {
                break;
            }
            dictionary.keep(&code, count.max((STAY * dictionary.len() as f64) as usize));
            // what takes the place of one that is there twice has a sweep to fit
            if count > MANY && sweep + 1 < SWEEPS {
                dictionary.keep_distinct();
            }
        }
        dictionary.fill(&code, count, interrupted)?;
    }
    let code = dictionary.code(rows.view(), interrupted)?;
    dictionary.keep(&code, count);
    Some(dictionary)
}

#[cfg(test)]
mod tests {
    use super::super::components::{orthonormal, principal_scores};
    use super::*;
    use crate::linalg::{product, Op};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Unit circles in random planes of p channels, `used` of them a row.
    fn circles(n: usize, p: usize, k: usize, used: usize) -> (Array2<f64>, Vec<Vec<bool>>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // a sum of uniform numbers is near enough to normal
        let mut unit = |d: usize| {
            let v: Vec<f64> = (0..d).map(|_| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0).collect();
            let length = v.iter().map(|v| v * v).sum::<f64>().sqrt();
            v.into_iter().map(|v| v / length).collect::<Vec<_>>()
        };
        let frame = |own: Vec<f64>| orthonormal(Array2::from_shape_vec((2, p), own).unwrap()).unwrap();
        let frames: Vec<Array2<f64>> = (0..k).map(|_| frame(unit(2 * p))).collect();
        let mut rows = Array2::zeros((n, p));
        let mut on = vec![vec![false; n]; k];
        for i in 0..n {
            for step in 0..used {
                // every circle is beside every other one
                let own = (i + step * (1 + (i / k) % (k - 1))) % k;
                let point = Array2::from_shape_vec((1, 2), unit(2)).unwrap();
                let mut row = rows.row_mut(i);
                row += &product((point.view(), Op::Plain), (frames[own].view(), Op::Plain)).row(0);
                on[own][i] = true;
            }
            let noise = unit(p);
            rows.row_mut(i).iter_mut().zip(noise).for_each(|(v, e)| *v += 0.1 * e);
        }
        (rows, on)
    }

    /// Rows on which the component that suits it best agrees with a circle, for the circle where they are fewest.
    fn worst_agreement(found: &Components, on: &[Vec<bool>]) -> usize {
        let active: Vec<Vec<bool>> = (0..found.len()).map(|k| found.component(k).active).collect();
        let agreement = |c: &Vec<bool>, truth: &[bool]| c.iter().zip(truth).filter(|(a, b)| a == b).count();
        let best = |truth: &Vec<bool>| active.iter().map(|c| agreement(c, truth)).max().unwrap();
        on.iter().map(best).min().unwrap()
    }

    #[test]
    fn more_circles_than_half_the_columns_are_told_apart() {
        let (rows, on) = circles(1500, 32, 20, 2);
        let found = components(&principal_scores(rows.view(), 32), (20, 2), 0, &|| false).unwrap();
        let worst = worst_agreement(&found, &on);
        assert!(worst > 1470, "{worst}");
    }

    #[test]
    fn an_outlier_a_factor_and_columns_of_zeros_change_little() {
        let (mut rows, on) = circles(1500, 32, 20, 2);
        rows.row_mut(7).mapv_inplace(|v| 100.0 * v);
        rows.mapv_inplace(|v| 1e60 * v);
        let wide = Array2::from_shape_fn((1500, 40), |(i, c)| if c < 32 { rows[[i, c]] } else { 0.0 });
        let found = components(&principal_scores(wide.view(), 40), (20, 2), 0, &|| false).unwrap();
        let worst = worst_agreement(&found, &on);
        assert!(worst > 1470, "{worst}");
    }

    #[test]
    fn there_are_as_many_as_wanted() {
        let (rows, _) = circles(600, 16, 10, 2);
        for count in [12, 17, 24] {
            let found = components(&principal_scores(rows.view(), 16), (count, 2), 0, &|| false).unwrap();
            assert_eq!(found.len(), count);
        }
    }

    #[test]
    fn components_have_the_same_bits_on_any_number_of_threads() {
        let (rows, _) = circles(700, 16, 10, 2);
        let scores = principal_scores(rows.view(), 16);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| components(&scores, (12, 2), 0, &|| false).unwrap());
            (0..found.len()).flat_map(|k| found.component(k).scores).map(f64::to_bits).collect::<Vec<_>>()
        };
        assert!(on(1) == on(3));
    }

    #[test]
    fn rows_of_too_few_dimensions_have_none() {
        let (rows, _) = circles(300, 8, 6, 2);
        for kept in [0, 1, 3] {
            let flat = Array2::from_shape_fn(rows.dim(), |(i, c)| if c < kept { rows[[i, c]] } else { 0.0 });
            assert!(components(&principal_scores(flat.view(), 8), (6, 2), 0, &|| false).is_none());
        }
        assert!(
            components(&principal_scores(rows.slice(ndarray::s![..8, ..]).view(), 8), (6, 2), 0, &|| false).is_none()
        );
    }

    #[test]
    fn an_interrupt_ends_the_search() {
        let (rows, _) = circles(400, 12, 8, 2);
        assert!(components(&principal_scores(rows.view(), 12), (8, 2), 0, &|| true).is_none());
    }
}
