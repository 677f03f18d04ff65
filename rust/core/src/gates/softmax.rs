//! Softmax with an entropy prior.
//!
//! With `a = softmax(l / tau)` over all K logits, `L = ln a` and `m = sum_j a_j L_j`, the energy is
//! `-sum a ln a`, its gradient `a_k (m - L_k) / tau` and its Hessian
//! `a_k [delta_kj (m - L_k - 1) + a_j (L_k + L_j + 1 - 2m)] / tau^2`. The Hessian is indefinite; the
//! curvature used in its place is the diagonal of Gershgorin row sums `D_kk = sum_j |H_kj|`.
//! The gates' own derivatives are `da_k/dl_u = a_k (delta_ku - a_u) / tau` and
//! `d2a_k/dl_u dl_v = a_k [(delta_ku - a_u)(delta_kv - a_v) - a_u (delta_uv - a_v)] / tau^2`.
//! The last logit is pinned at zero, since a common shift changes nothing.

use super::{check_positive, Gate, GatePrior, GateRow, RowFormula, RowGate, RowLogits};
use crate::errors::ShapeError;
use ndarray::ArrayView2;
use std::sync::Arc;

/// Entropies at a fixed set of logits drawn from their Gaussian prior: what the normaliser integrates over.
#[derive(Clone, Debug)]
pub struct EntropyNodes(Vec<f64>);

impl EntropyNodes {
    /// `logits` (nodes x free logits), equally weighted draws from N(0, 1/precision).
    pub fn new(logits: ArrayView2<'_, f64>, temperature: f64) -> Result<Self, ShapeError> {
        if logits.nrows() == 0 {
            return Err(ShapeError::value("the gate's normaliser needs at least one node"));
        }
        check_positive("temperature", temperature)?;
        crate::errors::check_finite("node_logits", logits)?;
        let mut row = vec![0.0; logits.ncols() + 1];
        Ok(Self(
            logits
                .rows()
                .into_iter()
                .map(|l| {
                    row[..l.len()].iter_mut().zip(l).for_each(|(r, l)| *r = *l);
                    LogGates::new(&row, 1.0 / temperature).entropy()
                })
                .collect(),
        ))
    }
}

#[derive(Clone, Debug)]
pub struct Softmax {
    inverse_temperature: f64,
    logit_precision: f64,
    top_k: Option<usize>,
    nodes: EntropyNodes,
}

/// Values and log-values over all atoms.
struct LogGates {
    a: Vec<f64>,
    ln_a: Vec<f64>,
    mean: f64,
}

impl LogGates {
    fn new(logits: &[f64], inverse_temperature: f64) -> Self {
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shifted: Vec<f64> = logits.iter().map(|l| (l - top) * inverse_temperature).collect();
        let ln_sum = shifted.iter().map(|x| x.exp()).sum::<f64>().ln();
        let ln_a: Vec<f64> = shifted.iter().map(|x| x - ln_sum).collect();
        let a: Vec<f64> = ln_a.iter().map(|x| x.exp()).collect();
        let mean = a.iter().zip(&ln_a).map(|(a, l)| a * l).sum();
        Self { a, ln_a, mean }
    }

    fn entropy(&self) -> f64 {
        -self.mean
    }

    /// Entry of the entropy's Hessian, without the factor 1/tau^2.
    fn hessian(&self, k: usize, j: usize) -> f64 {
        let diagonal = if k == j { self.mean - self.ln_a[k] - 1.0 } else { 0.0 };
        self.a[k] * (diagonal + self.a[j] * self.pair(k, j))
    }

    fn pair(&self, k: usize, j: usize) -> f64 {
        self.ln_a[k] + self.ln_a[j] + 1.0 - 2.0 * self.mean
    }
}

impl Softmax {
    /// With `top_k` a row uses at most that many atoms.
    pub fn new(
        temperature: f64,
        logit_precision: f64,
        top_k: Option<usize>,
        nodes: EntropyNodes,
    ) -> Result<Self, ShapeError> {
        check_positive("temperature", temperature)?;
        check_positive("logit_precision", logit_precision)?;
        if top_k == Some(0) {
            return Err(ShapeError::value("top_k must be at least 1, got 0"));
        }
        Ok(Self { inverse_temperature: 1.0 / temperature, logit_precision, top_k, nodes })
    }
}

impl Gate for Softmax {
    fn kind(&self) -> &'static str {
        "softmax"
    }

    fn n_free(&self, n_atoms: usize) -> usize {
        n_atoms.saturating_sub(1)
    }

    fn shares(&self) -> bool {
        true
    }

    fn cap(&self) -> usize {
        self.top_k.unwrap_or(usize::MAX)
    }

    fn values(&self, _: f64, logits: RowLogits<'_>, support: &[u32], a: &mut Vec<f64>) {
        let top = support.iter().map(|&k| logits[k as usize]).fold(f64::NEG_INFINITY, f64::max);
        a.clear();
        a.extend(support.iter().map(|&k| ((logits[k as usize] - top) * self.inverse_temperature).exp()));
        let total: f64 = a.iter().sum();
        a.iter_mut().for_each(|v| *v /= total);
    }

    fn row(&self, _: f64, logits: RowLogits<'_>, support: &[u32], out: &mut GateRow) {
        let logits = logits.values();
        // The pinned logit is the last atom's, so a sorted support has it last: slots are positions.
        out.clear(support.iter().filter(|&&k| (k as usize) + 1 < logits.len()).count());
        if support.len() == 1 {
            out.a.push(1.0);
            out.da.resize(out.free, 0.0);
            out.d2a.resize(out.free * out.free, 0.0);
            return;
        }
        let top = support.iter().map(|&k| logits[k as usize]).fold(f64::NEG_INFINITY, f64::max);
        out.a.extend(support.iter().map(|&k| ((logits[k as usize] - top) * self.inverse_temperature).exp()));
        let total: f64 = out.a.iter().sum();
        out.a.iter_mut().for_each(|v| *v /= total);
        let (f, rate) = (out.free, self.inverse_temperature);
        let GateRow { a, da, d2a, .. } = out;
        for (s, own) in a.iter().enumerate() {
            let lead = |u: usize| f64::from(u8::from(s == u)) - a[u];
            da.extend((0..f).map(|u| rate * own * lead(u)));
            let scale = rate * rate * own;
            for u in 0..f {
                let (along, bend) = (lead(u), scale * a[u]);
                let from = d2a.len();
                d2a.extend((0..f).map(|v| scale * along * lead(v) + bend * a[v]));
                d2a[from + u] -= bend;
            }
        }
    }

    fn formula(&self, _: f64, logits: RowLogits<'_>, support: &[u32]) -> RowFormula {
        let logits: Vec<f64> = support.iter().map(|&k| logits[k as usize]).collect();
        let moves = vec![true; logits.len()];
        RowFormula { gate: RowGate::Softmax, inverse_temperature: self.inverse_temperature, logits, moves }
    }

    /// With a bound on their number those of `current` come first: a gate that the data do not see is as large as its prior
    /// has it, and takes nobody's place.
    fn significant(&self, logits: &[f64], current: &[u32], cutoff: f64, support: &mut Vec<u32>) {
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        support.clear();
        support.extend(
            (0..logits.len() as u32)
                .filter(|&k| ((logits[k as usize] - top) * self.inverse_temperature).exp() > cutoff),
        );
        if support.len() > self.cap() {
            let first = |x: &u32, y: &u32| {
                let larger = logits[*y as usize].total_cmp(&logits[*x as usize]);
                (!current.contains(x)).cmp(&!current.contains(y)).then(larger).then(x.cmp(y))
            };
            support.select_nth_unstable_by(self.cap() - 1, first);
            support.truncate(self.cap());
            support.sort_unstable();
        }
    }

    fn logit_of_share(&self, share: f64) -> f64 {
        (share / (1.0 - share)).ln() / self.inverse_temperature
    }

    /// Shares lie between zero and one.
    fn range(&self, _: f64, _: usize) -> (f64, f64) {
        (0.0, 1.0)
    }

    fn logit_of_value(&self, _: f64, _: usize, value: f64) -> f64 {
        self.logit_of_share(value)
    }

    fn prior(&self, logits: RowLogits<'_>, out: &mut GatePrior) {
        let logits = logits.values();
        out.clear();
        let free = self.n_free(logits.len());
        if free == 0 {
            return;
        }
        let g = LogGates::new(logits, self.inverse_temperature);
        let (t1, t2) = (self.inverse_temperature, self.inverse_temperature * self.inverse_temperature);
        out.energy = g.entropy();
        for k in 0..free {
            out.gradient.push(t1 * g.a[k] * (g.mean - g.ln_a[k]));
            out.majoriser.push(t2 * (0..logits.len()).map(|j| g.hessian(k, j).abs()).sum::<f64>());
        }
    }

    fn add_prior_hessian(&self, logits: RowLogits<'_>, factor: f64, out: &mut [f64], stride: usize) {
        let logits = logits.values();
        let free = self.n_free(logits.len());
        if free == 0 {
            return;
        }
        let g = LogGates::new(logits, self.inverse_temperature);
        let scale = factor * self.inverse_temperature * self.inverse_temperature;
        for (k, row) in out.chunks_mut(stride).take(free).enumerate() {
            row.iter_mut().take(free).enumerate().for_each(|(j, h)| *h += scale * g.hessian(k, j));
        }
    }

    fn prior_hessian_apply(&self, logits: RowLogits<'_>, factor: f64, v: &[f64], out: &mut [f64]) {
        let logits = logits.values();
        let free = self.n_free(logits.len());
        if free == 0 {
            return;
        }
        let g = LogGates::new(logits, self.inverse_temperature);
        let scale = factor * self.inverse_temperature * self.inverse_temperature;
        let av: f64 = (0..free).map(|j| g.a[j] * v[j]).sum();
        let alv: f64 = (0..free).map(|j| g.a[j] * g.ln_a[j] * v[j]).sum();
        for k in 0..free {
            let diagonal = (g.mean - g.ln_a[k] - 1.0) * v[k];
            out[k] += scale * g.a[k] * (diagonal + (g.ln_a[k] + 1.0 - 2.0 * g.mean) * av + alv);
        }
    }

    /// Reverse mode on `F = sum_kj s_kj H_kj` with `s_kj = weights_k sign(H_kj)`: first by `a`, `L` and `m`
    /// as if independent, then through `da_r = a_r (d_rw - a_w)/tau`, `dL_r = (d_rw - a_w)/tau` and
    /// `dm = a_w (L_w - m)/tau`.
    fn majoriser_adjoint(&self, logits: RowLogits<'_>, factor: f64, weights: &[f64], out: &mut [f64]) {
        let logits = logits.values();
        let free = self.n_free(logits.len());
        if free == 0 {
            return;
        }
        let g = LogGates::new(logits, self.inverse_temperature);
        let n = logits.len();
        let (mut by_a, mut by_l, mut by_m) = (vec![0.0; n], vec![0.0; n], 0.0);
        for k in 0..free {
            for j in 0..n {
                let h = g.hessian(k, j);
                let s = if h == 0.0 { 0.0 } else { weights[k] * h.signum() };
                let (pair, aa) = (g.pair(k, j), g.a[k] * g.a[j]);
                by_a[k] += s * g.a[j] * pair;
                by_a[j] += s * g.a[k] * pair;
                by_l[k] += s * aa;
                by_l[j] += s * aa;
                by_m -= 2.0 * s * aa;
                if k == j {
                    by_a[k] += s * (g.mean - g.ln_a[k] - 1.0);
                    by_l[k] -= s * g.a[k];
                    by_m += s * g.a[k];
                }
            }
        }
        let sum: f64 = (0..n).map(|r| by_a[r] * g.a[r] + by_l[r]).sum();
        let scale = factor * self.inverse_temperature.powi(3);
        for w in 0..free {
            let own = by_a[w] * g.a[w] + by_l[w];
            out[w] += scale * (own - g.a[w] * sum + by_m * g.a[w] * (g.ln_a[w] - g.mean));
        }
    }

    /// Log-mean-exp of `-lambda * entropy` over the nodes.
    fn ln_normaliser(&self, lambda: f64, _: usize) -> (f64, f64) {
        let nodes = &self.nodes.0;
        if nodes.is_empty() {
            return (0.0, 0.0);
        }
        let least = nodes.iter().copied().fold(f64::INFINITY, f64::min);
        let (mut total, mut moment) = (0.0, 0.0);
        for &entropy in nodes {
            let w = (-lambda * (entropy - least)).exp();
            total += w;
            moment += w * entropy;
        }
        ((total / nodes.len() as f64).ln() - lambda * least, -lambda * moment / total)
    }

    fn logit_precision(&self) -> f64 {
        self.logit_precision
    }

    fn improper(&self) -> Arc<dyn Gate> {
        Arc::new(Self { logit_precision: 0.0, nodes: EntropyNodes(Vec::new()), ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gate(temperature: f64) -> Softmax {
        let nodes = ndarray::Array2::from_shape_fn((64, 1), |(i, _)| (i as f64 - 31.5) / 6.0);
        Softmax::new(temperature, 0.04, None, EntropyNodes::new(nodes.view(), temperature).unwrap()).unwrap()
    }

    fn logits() -> impl Strategy<Value = Vec<f64>> {
        (2usize..12).prop_flat_map(|k| prop::collection::vec(-4.0f64..4.0, k - 1)).prop_map(|mut l| {
            l.push(0.0);
            l
        })
    }

    /// Signs of the entries of the entropy's Hessian. Equal shifts of all logits do not change it, so that the column of
    /// the last atom, whose logit is not free, is what the others sum to.
    fn signs(gate: &Softmax, l: &[f64]) -> Vec<bool> {
        let f = l.len() - 1;
        let axes = (0..f).map(|w| (0..f).map(|j| f64::from(u8::from(j == w))).collect());
        let columns = axes.chain([vec![1.0; f]]).flat_map(|v: Vec<f64>| {
            let mut column = vec![0.0; f];
            gate.prior_hessian_apply(l.into(), 1.0, &v, &mut column);
            column
        });
        columns.map(|v| v > 0.0).collect()
    }

    proptest! {
        #[test]
        fn derivatives_match_differences(l in logits(), temperature in 0.5f64..2.0) {
            let gate = gate(temperature);
            let support: Vec<u32> = (0..l.len() as u32).collect();
            let f = l.len() - 1;
            let (mut at, mut lo, mut hi) = (GateRow::default(), GateRow::default(), GateRow::default());
            let (mut p, mut p_lo, mut p_hi) = (GatePrior::default(), GatePrior::default(), GatePrior::default());
            gate.row(1.0, (&l).into(), &support, &mut at);
            gate.prior((&l).into(), &mut p);
            let e = 1e-5;
            for w in 0..f {
                let (mut down, mut up) = (l.clone(), l.clone());
                down[w] -= e;
                up[w] += e;
                gate.row(1.0, (&down).into(), &support, &mut lo);
                gate.row(1.0, (&up).into(), &support, &mut hi);
                gate.prior((&down).into(), &mut p_lo);
                gate.prior((&up).into(), &mut p_hi);
                prop_assert!(((p_hi.energy - p_lo.energy) / (2.0 * e) - p.gradient[w]).abs() < 1e-7);
                let mut column = vec![0.0; f];
                let unit: Vec<f64> = (0..f).map(|j| f64::from(u8::from(j == w))).collect();
                gate.prior_hessian_apply((&l).into(), 1.0, &unit, &mut column);
                let mut whole = vec![0.0; f * f];
                gate.add_prior_hessian((&l).into(), 1.0, &mut whole, f);
                for j in 0..f {
                    prop_assert!((whole[w * f + j] - column[j]).abs() < 1e-12);
                }
                let mut adjoint = vec![0.0; f];
                let weights: Vec<f64> = (0..f).map(|j| 0.3 + j as f64).collect();
                gate.majoriser_adjoint((&l).into(), 1.0, &weights, &mut adjoint);
                let slope: f64 =
                    (0..f).map(|k| weights[k] * (p_hi.majoriser[k] - p_lo.majoriser[k]) / (2.0 * e)).sum();
                // the majoriser has a kink where an entry of the Hessian is zero, and no slope across it
                let smooth = signs(&gate, &down) == signs(&gate, &up);
                prop_assert!(!smooth || (slope - adjoint[w]).abs() < 1e-5 * (1.0 + weights.iter().sum::<f64>()));
                for j in 0..f {
                    prop_assert!(((p_hi.gradient[j] - p_lo.gradient[j]) / (2.0 * e) - column[j]).abs() < 1e-6);
                }
                for s in 0..l.len() {
                    prop_assert!(((hi.a[s] - lo.a[s]) / (2.0 * e) - at.da[s * f + w]).abs() < 1e-7);
                    for u in 0..f {
                        let slope = (hi.da[s * f + u] - lo.da[s * f + u]) / (2.0 * e);
                        prop_assert!((slope - at.d2a[(s * f + u) * f + w]).abs() < 1e-6);
                    }
                }
            }
        }

        #[test]
        fn the_majoriser_dominates_the_hessian(l in logits(), v in prop::collection::vec(-1.0f64..1.0, 12)) {
            let gate = gate(1.0);
            let f = l.len() - 1;
            let mut prior = GatePrior::default();
            gate.prior((&l).into(), &mut prior);
            let mut hv = vec![0.0; f];
            gate.prior_hessian_apply((&l).into(), 1.0, &v[..f], &mut hv);
            let quadratic: f64 = (0..f).map(|k| v[k] * (prior.majoriser[k] * v[k] - hv[k])).sum();
            prop_assert!(quadratic >= -1e-12);
        }
    }

    #[test]
    fn normaliser_derivative_matches_differences() {
        let gate = gate(1.0);
        for rho in [-2.0f64, 0.0, 3.0] {
            let e = 1e-5;
            let slope =
                (gate.ln_normaliser((rho + e).exp(), 2).0 - gate.ln_normaliser((rho - e).exp(), 2).0) / (2.0 * e);
            assert!((slope - gate.ln_normaliser(rho.exp(), 2).1).abs() < 1e-8);
        }
    }
}
