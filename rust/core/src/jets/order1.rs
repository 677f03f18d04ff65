use super::{Jet, Stack};

/// Value and gradient over `N` primaries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order1<const N: usize> {
    pub value: f64,
    pub gradient: [f64; N],
}

impl<const N: usize> Jet for Order1<N> {
    type Space = ();

    fn constant((): (), value: f64) -> Self {
        Self { value, gradient: [0.0; N] }
    }
    fn variable((): (), value: f64, slot: usize) -> Self {
        let mut jet = Self::constant((), value);
        jet.gradient[slot] = 1.0;
        jet
    }
    fn value(&self) -> f64 {
        self.value
    }
    fn gradient(&self, slot: usize) -> f64 {
        self.gradient[slot]
    }
    fn hessian(&self, _: usize, _: usize) -> f64 {
        0.0
    }
    fn add(&self, other: &Self) -> Self {
        Self {
            value: self.value + other.value,
            gradient: std::array::from_fn(|a| self.gradient[a] + other.gradient[a]),
        }
    }
    fn mul(&self, other: &Self) -> Self {
        Self {
            value: self.value * other.value,
            gradient: std::array::from_fn(|a| self.value * other.gradient[a] + other.value * self.gradient[a]),
        }
    }
    fn scale(&self, factor: f64) -> Self {
        Self { value: factor * self.value, gradient: self.gradient.map(|g| factor * g) }
    }
    fn compose(&self, f: Stack) -> Self {
        Self { value: f.f, gradient: self.gradient.map(|g| f.d1 * g) }
    }
}
