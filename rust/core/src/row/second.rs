//! Second derivatives of one row against a vector: what the exact Hessian has beyond Gauss-Newton.

use crate::gates::GateRow;
use crate::linalg::dot;

/// One atom of a row: its basis row with derivatives (M, d x M, d x d x M), the vector on its stacked rows, and where its
/// coordinates begin among the row's variables.
pub struct SecondAtom<'a> {
    pub phi: &'a [f64],
    pub d1: &'a [f64],
    pub d2: &'a [f64],
    pub against: &'a [f64],
    pub slot: usize,
}

/// Adds the second derivatives of `sum_k a_k(l) <Phi_k(t_k), x_k>` to `out` (q x q); `logit` says where a free logit of the
/// support stands among the row's variables.
pub fn add_second<'a>(
    gate: &GateRow,
    logit: impl Fn(usize) -> usize,
    atoms: impl Iterator<Item = SecondAtom<'a>>,
    q: usize,
    out: &mut [f64],
) {
    let free = gate.free;
    for (s, atom) in atoms.enumerate() {
        let (x, slot) = (atom.against, atom.slot);
        let (width, dim) = (x.len(), atom.d1.len() / x.len());
        let value = dot(atom.phi, x);
        for a in 0..free {
            let u = logit(a);
            for (b, d2a) in gate.d2a[(s * free + a) * free..(s * free + a + 1) * free].iter().enumerate() {
                out[u * q + logit(b)] += d2a * value;
            }
        }
        for (j, d1) in atom.d1.chunks_exact(width).enumerate() {
            let slope = dot(d1, x);
            for a in 0..free {
                let (u, mixed) = (logit(a), gate.da[s * free + a] * slope);
                out[u * q + slot + j] += mixed;
                out[(slot + j) * q + u] += mixed;
            }
        }
        for (pair, d2) in atom.d2.chunks_exact(width).enumerate() {
            out[(slot + pair / dim) * q + slot + pair % dim] += gate.a[s] * dot(d2, x);
        }
    }
}
