//! The logistic function with its derivatives, and rows of gates that do not depend on each other.

use super::GateRow;

/// `s(x)` and its first three derivatives, in the branch that does not overflow.
pub(super) fn logistic(x: f64) -> [f64; 4] {
    let s = if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
    // s(-x) directly: 1 - s loses all digits where s is near one
    let rest = if x >= 0.0 { (-x).exp() / (1.0 + (-x).exp()) } else { 1.0 / (1.0 + x.exp()) };
    let c = s * rest;
    [s, c, c * (rest - s), c * (1.0 - 6.0 * c)]
}

/// Fills a row of independent gates: `jets` gives each atom's value with its first two derivatives in its own logit.
pub(super) fn independent_row(support: &[u32], jets: impl Fn(usize) -> [f64; 3], out: &mut GateRow) {
    let f = support.len();
    out.clear(f);
    out.da.resize(f * f, 0.0);
    out.d2a.resize(f * f * f, 0.0);
    for (s, &k) in support.iter().enumerate() {
        let [a, d1, d2] = jets(k as usize);
        out.a.push(a);
        out.da[s * f + s] = d1;
        out.d2a[(s * f + s) * f + s] = d2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_match_differences_and_tails_keep_their_digits() {
        let e = 1e-5;
        for x in [-30.0, -3.0, -0.2, 0.0, 1.7, 30.0] {
            let (at, lo, hi) = (logistic(x), logistic(x - e), logistic(x + e));
            for order in 0..3 {
                let slope = (hi[order] - lo[order]) / (2.0 * e);
                assert!((slope - at[order + 1]).abs() < 1e-9, "{x} {order}");
            }
        }
        // the mirror image is exact in both tails
        assert_eq!(logistic(-700.0)[1], logistic(700.0)[1]);
        assert!(logistic(700.0)[1] > 0.0);
    }
}
