//! Preconditioned conjugate gradients, inside a trust region when one is given (Steihaug).

use super::Step;

/// How the iteration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The preconditioned residual fell below the tolerance.
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

/// Solves `A x = b` to a residual of `tolerance * |b|`, both in the norm of the preconditioner's inverse.
///
/// `precondition` applies M^-1 with M positive definite; lengths are measured in M.
pub fn conjugate_gradients(
    apply: impl Fn(&Step) -> Step,
    precondition: impl Fn(&Step) -> Step,
    b: &Step,
    tolerance: f64,
    max_iterations: usize,
    radius: f64,
    interrupted: &dyn Fn() -> bool,
) -> Solution {
    let mut x = Step::zeros_like(b);
    let mut ax = Step::zeros_like(b);
    let mut residual = b.clone();
    let mut z = precondition(&residual);
    let mut rz = residual.dot(&z);
    let target = tolerance * tolerance * rz;
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
