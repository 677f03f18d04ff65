use super::{Jet, Stack};

/// Value, gradient and Hessian over `N` primaries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order2<const N: usize> {
    pub value: f64,
    pub gradient: [f64; N],
    pub hessian: [[f64; N]; N],
}

impl<const N: usize> Order2<N> {
    fn from_hessian(value: f64, gradient: [f64; N], hessian: impl Fn(usize, usize) -> f64) -> Self {
        Self { value, gradient, hessian: std::array::from_fn(|a| std::array::from_fn(|b| hessian(a, b))) }
    }
}

impl<const N: usize> Jet for Order2<N> {
    type Space = ();

    fn constant((): (), value: f64) -> Self {
        Self { value, gradient: [0.0; N], hessian: [[0.0; N]; N] }
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
    fn hessian(&self, slot: usize, other: usize) -> f64 {
        self.hessian[slot][other]
    }
    fn add(&self, other: &Self) -> Self {
        Self::from_hessian(
            self.value + other.value,
            std::array::from_fn(|a| self.gradient[a] + other.gradient[a]),
            |a, b| self.hessian[a][b] + other.hessian[a][b],
        )
    }
    fn mul(&self, other: &Self) -> Self {
        let (u, v) = (self, other);
        Self::from_hessian(
            u.value * v.value,
            std::array::from_fn(|a| u.value * v.gradient[a] + v.value * u.gradient[a]),
            |a, b| {
                u.value * v.hessian[a][b]
                    + v.value * u.hessian[a][b]
                    + (u.gradient[a] * v.gradient[b] + u.gradient[b] * v.gradient[a])
            },
        )
    }
    fn scale(&self, factor: f64) -> Self {
        Self::from_hessian(factor * self.value, self.gradient.map(|g| factor * g), |a, b| factor * self.hessian[a][b])
    }
    fn compose(&self, f: Stack) -> Self {
        let g = &self.gradient;
        Self::from_hessian(f.f, g.map(|g| f.d1 * g), |a, b| f.d1 * self.hessian[a][b] + f.d2 * g[a] * g[b])
    }
}
