use super::{Jet, Stack};

/// Value, gradient and Hessian over any number of primaries, on the heap.
#[derive(Clone, Debug, PartialEq)]
pub struct HeapOrder2 {
    pub value: f64,
    pub gradient: Vec<f64>,
    /// Row-major, `n x n`.
    pub hessian: Vec<f64>,
}

impl HeapOrder2 {
    fn from_hessian(value: f64, gradient: Vec<f64>, hessian: impl Fn(usize, usize) -> f64) -> Self {
        let n = gradient.len();
        let hessian = (0..n * n).map(|i| hessian(i / n, i % n)).collect();
        Self { value, gradient, hessian }
    }

    fn at(&self, a: usize, b: usize) -> f64 {
        self.hessian[a * self.gradient.len() + b]
    }
}

impl Jet for HeapOrder2 {
    type Space = usize;

    fn constant(n: usize, value: f64) -> Self {
        Self { value, gradient: vec![0.0; n], hessian: vec![0.0; n * n] }
    }
    fn variable(n: usize, value: f64, slot: usize) -> Self {
        let mut jet = Self::constant(n, value);
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
        self.at(slot, other)
    }
    fn add(&self, other: &Self) -> Self {
        let gradient = self.gradient.iter().zip(&other.gradient).map(|(a, b)| a + b).collect();
        Self::from_hessian(self.value + other.value, gradient, |a, b| self.at(a, b) + other.at(a, b))
    }
    fn mul(&self, other: &Self) -> Self {
        let (u, v) = (self, other);
        let gradient = u.gradient.iter().zip(&v.gradient).map(|(a, b)| u.value * b + v.value * a).collect();
        Self::from_hessian(u.value * v.value, gradient, |a, b| {
            u.value * v.at(a, b)
                + v.value * u.at(a, b)
                + (u.gradient[a] * v.gradient[b] + u.gradient[b] * v.gradient[a])
        })
    }
    fn scale(&self, factor: f64) -> Self {
        Self::from_hessian(factor * self.value, self.gradient.iter().map(|g| factor * g).collect(), |a, b| {
            factor * self.at(a, b)
        })
    }
    fn compose(&self, f: Stack) -> Self {
        Self::from_hessian(f.f, self.gradient.iter().map(|g| f.d1 * g).collect(), |a, b| {
            f.d1 * self.at(a, b) + f.d2 * self.gradient[a] * self.gradient[b]
        })
    }
}
