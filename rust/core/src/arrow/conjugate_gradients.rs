//! Preconditioned conjugate gradients, inside a trust region when one is given (Steihaug).

use super::Step;

/// How the iteration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The preconditioned residual is small enough.
    Converged,
    /// The step reached the trust region's boundary.
    Boundary,
    /// A direction of negative curvature was met (followed to the boundary when there is one).
    NegativeCurvature,
    IterationLimit,
    Interrupted,
}

/// An approximate solution of `A x = b`.
#[derive(Clone, Debug)]
pub struct Solution {
    pub x: Step,
    /// `A x`.
    pub ax: Step,
    /// Length of x in the preconditioner's norm.
    pub length: f64,
    pub iterations: usize,
    pub ending: Ending,
}

/// Residuals that are small enough, in the norm of the preconditioner's inverse.
#[derive(Clone, Copy, Debug)]
pub struct Enough {
    part: f64,
    length: f64,
}

impl Enough {
    /// This part of the right-hand side.
    pub fn part(part: f64) -> Self {
        Self { part, length: 0.0 }
    }

    /// Or this length.
    pub fn or(self, length: f64) -> Self {
        Self { length, ..self }
    }
}

/// Solves `A x = b`.
///
/// `precondition` applies M^-1 with M positive definite; lengths are measured in M.
pub fn conjugate_gradients(
    apply: impl Fn(&Step) -> Step,
    precondition: impl Fn(&Step) -> Step,
    b: &Step,
    enough: Enough,
    max_iterations: usize,
    radius: f64,
    interrupted: &dyn Fn() -> bool,
) -> Solution {
    let mut x = Step::zeros_like(b);
    let mut ax = Step::zeros_like(b);
    let mut residual = b.clone();
    let mut z = precondition(&residual);
    let mut rz = residual.dot(&z);
    let target = (enough.part * enough.part * rz).max(enough.length * enough.length);
    let mut d = z.clone();
    // squared lengths in M by recurrence: |x|^2, <x, d> and |d|^2
    let (mut xx, mut xd, mut dd) = (0.0f64, 0.0f64, rz);
    let mut iterations = 0;
    let finish =
        |x, ax, xx: f64, iterations, ending| Solution { x, ax, length: xx.max(0.0).sqrt(), iterations, ending };
    loop {
        if rz.is_nan() || rz <= target {
            return finish(x, ax, xx, iterations, Ending::Converged);
        }
        if iterations == max_iterations {
            return finish(x, ax, xx, iterations, Ending::IterationLimit);
        }
        if interrupted() {
            return finish(x, ax, xx, iterations, Ending::Interrupted);
        }
        iterations += 1;
        let ad = apply(&d);
        let curvature = d.dot(&ad);
        let alpha = rz / curvature;
        let beyond = xx + 2.0 * alpha * xd + alpha * alpha * dd >= radius * radius;
        if curvature <= 0.0 || beyond {
            let ending = if curvature <= 0.0 { Ending::NegativeCurvature } else { Ending::Boundary };
            if radius.is_finite() {
                let tau = (-xd + (xd * xd + dd * (radius * radius - xx)).max(0.0).sqrt()) / dd;
                x.add(tau, &d);
                ax.add(tau, &ad);
                xx = radius * radius;
            }
            return finish(x, ax, xx, iterations, ending);
        }
        x.add(alpha, &d);
        ax.add(alpha, &ad);
        residual.add(-alpha, &ad);
        xx += 2.0 * alpha * xd + alpha * alpha * dd;
        z = precondition(&residual);
        let next = residual.dot(&z);
        let beta = next / rz;
        rz = next;
        xd = beta * (xd + alpha * dd);
        dd = rz + beta * beta * dd;
        d.scale(beta);
        d.add(1.0, &z);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Residual of a diagonal system, with how many iterations it took.
    fn residual(enough: Enough) -> (f64, usize) {
        let diagonal: Vec<f64> = (0..30).map(|i| 1.0 + f64::from(i)).collect();
        let step = |local: Vec<f64>| Step { local, border: ndarray::Array2::zeros((0, 0)) };
        let apply = |x: &Step| step(x.local.iter().zip(&diagonal).map(|(x, d)| x * d).collect());
        let b = step(vec![2.0; 30]);
        let found = conjugate_gradients(apply, Step::clone, &b, enough, 100, f64::INFINITY, &|| false);
        assert_eq!(found.ending, Ending::Converged);
        let mut left = b;
        left.add(-1.0, &apply(&found.x));
        (left.dot(&left).sqrt(), found.iterations)
    }

    #[test]
    fn what_is_enough_is_a_part_or_a_length() {
        let whole = 2.0 * 30f64.sqrt();
        let (by_part, most) = residual(Enough::part(1e-8));
        assert!(by_part <= 1e-8 * whole);
        let (by_length, fewer) = residual(Enough::part(1e-8).or(1e-3));
        assert!(by_length <= 1e-3 && by_length > 1e-8 * whole && fewer < most);
        assert_eq!(residual(Enough::part(0.1).or(1e-9)), residual(Enough::part(0.1)));
        assert_eq!(residual(Enough::part(0.1).or(whole)).1, 0);
    }
}
