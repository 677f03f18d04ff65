//! The assignment problem.

/// For each row of a square table of costs its column, so that the sum of the costs is least (the Hungarian method).
///
/// Rows enter one at a time. Each follows the cheapest chain of trades to a free column; `row_price` and `column_price` keep all
/// reduced costs non-negative, with those of assigned pairs zero.
pub fn cheapest(costs: &[Vec<f64>]) -> Vec<usize> {
    let n = costs.len();
    // column n stands for "none": the row that is being placed
    let (mut row_price, mut column_price) = (vec![0.0; n], vec![0.0; n + 1]);
    let mut row_of: Vec<Option<usize>> = vec![None; n + 1];
    for new in 0..n {
        row_of[n] = Some(new);
        let mut at = n;
        let mut reach = vec![f64::INFINITY; n];
        let mut came_from = vec![n; n];
        let mut visited = vec![false; n + 1];
        while let Some(row) = row_of[at] {
            visited[at] = true;
            let mut next: Option<usize> = None;
            for column in (0..n).filter(|&c| !visited[c]) {
                let reduced = costs[row][column] - row_price[row] - column_price[column];
                if reduced < reach[column] {
                    (reach[column], came_from[column]) = (reduced, at);
                }
                if next.is_none_or(|c| reach[column] < reach[c]) {
                    next = Some(column);
                }
            }
            let Some(next) = next else { break };
            let step = reach[next];
            for column in 0..=n {
                if visited[column] {
                    row_price[row_of[column].expect("visited columns have rows")] += step;
                    column_price[column] -= step;
                } else {
                    reach[column] -= step;
                }
            }
            at = next;
        }
        while at != n {
            row_of[at] = row_of[came_from[at]];
            at = came_from[at];
        }
    }
    let mut out = vec![0; n];
    for column in 0..n {
        if let Some(row) = row_of[column] {
            out[row] = column;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn least(costs: &[Vec<f64>], used: &mut Vec<bool>, row: usize) -> f64 {
        if row == costs.len() {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for column in 0..costs.len() {
            if !used[column] {
                used[column] = true;
                best = best.min(costs[row][column] + least(costs, used, row + 1));
                used[column] = false;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_permutation_is_cheaper(n in 1usize..6, values in prop::collection::vec(0.0f64..10.0, 36)) {
            let costs: Vec<Vec<f64>> = (0..n).map(|i| values[i * 6..i * 6 + n].to_vec()).collect();
            let columns = cheapest(&costs);
            let mut seen = columns.clone();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
            let total: f64 = columns.iter().enumerate().map(|(i, &j)| costs[i][j]).sum();
            prop_assert!((total - least(&costs, &mut vec![false; n], 0)).abs() < 1e-12);
        }
    }
}
