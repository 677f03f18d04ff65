//! Truncated Taylor values over seeded variables ("primaries").
//!
//! One trait, so that a program written once yields its value, gradient and Hessian. [`Order1`] and
//! [`Order2`] have their number of primaries fixed by the compiler; [`HeapOrder2`] takes over above the
//! compiled sizes.

mod heap;
mod order1;
mod order2;

pub use heap::HeapOrder2;
pub use order1::Order1;
pub use order2::Order2;

/// A function's value and first two derivatives at a point, for [`Jet::compose`].
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    pub f: f64,
    pub d1: f64,
    pub d2: f64,
}

/// A truncated Taylor value.
pub trait Jet: Clone {
    /// What fixes the number of primaries: `()` where the type does, a count on the heap.
    type Space: Copy;

    fn constant(space: Self::Space, value: f64) -> Self;
    fn variable(space: Self::Space, value: f64, slot: usize) -> Self;
    fn value(&self) -> f64;
    /// Gradient entry `slot` (0 where the order is not carried).
    fn gradient(&self, slot: usize) -> f64;
    /// Hessian entry (0 where the order is not carried).
    fn hessian(&self, slot: usize, other: usize) -> f64;
    fn add(&self, other: &Self) -> Self;
    fn sub(&self, other: &Self) -> Self {
        self.add(&other.scale(-1.0))
    }
    /// Leibniz' rule.
    fn mul(&self, other: &Self) -> Self;
    fn scale(&self, factor: f64) -> Self;
    /// Faa di Bruno's rule: the jet of `f(self)`, given `f` and its derivatives at the value.
    fn compose(&self, f: Stack) -> Self;

    /// Adds a constant.
    fn shift(&self, by: f64) -> Self {
        self.compose(Stack { f: self.value() + by, d1: 1.0, d2: 0.0 })
    }
    fn exp(&self) -> Self {
        let e = self.value().exp();
        self.compose(Stack { f: e, d1: e, d2: e })
    }
    fn recip(&self) -> Self {
        let r = 1.0 / self.value();
        self.compose(Stack { f: r, d1: -r * r, d2: 2.0 * r * r * r })
    }
    /// The logistic function, in the branch that does not overflow.
    fn sigmoid(&self) -> Self {
        let x = self.value();
        let s = if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
        let d1 = s * (1.0 - s);
        self.compose(Stack { f: s, d1, d2: d1 * (1.0 - 2.0 * s) })
    }
    fn sin(&self) -> Self {
        let (s, c) = self.value().sin_cos();
        self.compose(Stack { f: s, d1: c, d2: -s })
    }
    fn cos(&self) -> Self {
        let (s, c) = self.value().sin_cos();
        self.compose(Stack { f: c, d1: -s, d2: -c })
    }
}

#[cfg(test)]
mod tests;
