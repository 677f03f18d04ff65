use super::{Jet, Number, Stack};

/// Value, gradient and Hessian over `N` primaries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order2<const N: usize, V = f64> {
    pub value: V,
    pub gradient: [V; N],
    pub hessian: [[V; N]; N],
}

impl<const N: usize, V: Number> Order2<N, V> {
    #[inline(always)]
    fn from_hessian(value: V, gradient: [V; N], hessian: impl Fn(usize, usize) -> V) -> Self {
        Self { value, gradient, hessian: std::array::from_fn(|a| std::array::from_fn(|b| hessian(a, b))) }
    }
}

impl<const N: usize, V: Number> Jet for Order2<N, V> {
    const ORDER: usize = 2;
    type Space = ();
    type Value = V;

    #[inline(always)]
    fn constant((): (), value: V) -> Self {
        Self { value, gradient: [V::default(); N], hessian: [[V::default(); N]; N] }
    }
    #[inline(always)]
    fn variable((): (), value: V, slot: usize) -> Self {
        let mut jet = Self::constant((), value);
        jet.gradient[slot] = V::splat(1.0);
        jet
    }
    #[inline(always)]
    fn value(&self) -> V {
        self.value
    }
    #[inline(always)]
    fn derivatives(&self, slots: &[usize]) -> &[V] {
        match *slots {
            [] => &self.gradient,
            [a, ..] => &self.hessian[a],
        }
    }
    #[inline(always)]
    fn add(&self, other: &Self) -> Self {
        Self::from_hessian(
            self.value + other.value,
            std::array::from_fn(|a| self.gradient[a] + other.gradient[a]),
            |a, b| self.hessian[a][b] + other.hessian[a][b],
        )
    }
    #[inline(always)]
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
    #[inline(always)]
    fn scale(&self, factor: V) -> Self {
        Self::from_hessian(factor * self.value, self.gradient.map(|g| factor * g), |a, b| factor * self.hessian[a][b])
    }
    #[inline(always)]
    fn compose(&self, f: Stack<V>) -> Self {
        let g = &self.gradient;
        Self::from_hessian(f.f, g.map(|g| f.d1 * g), |a, b| f.d1 * self.hessian[a][b] + f.d2 * (g[a] * g[b]))
    }
}
