use super::{Jet, Number, Stack};

/// Value and gradient over `N` primaries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order1<const N: usize, V = f64> {
    pub value: V,
    pub gradient: [V; N],
}

impl<const N: usize, V: Number> Jet for Order1<N, V> {
    const ORDER: usize = 1;
    type Space = ();
    type Value = V;

    #[inline(always)]
    fn constant((): (), value: V) -> Self {
        Self { value, gradient: [V::default(); N] }
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
    fn derivatives(&self, _: &[usize]) -> &[V] {
        &self.gradient
    }
    #[inline(always)]
    fn add(&self, other: &Self) -> Self {
        Self {
            value: self.value + other.value,
            gradient: std::array::from_fn(|a| self.gradient[a] + other.gradient[a]),
        }
    }
    #[inline(always)]
    fn mul(&self, other: &Self) -> Self {
        Self {
            value: self.value * other.value,
            gradient: std::array::from_fn(|a| self.value * other.gradient[a] + other.value * self.gradient[a]),
        }
    }
    #[inline(always)]
    fn scale(&self, factor: V) -> Self {
        Self { value: factor * self.value, gradient: self.gradient.map(|g| factor * g) }
    }
    #[inline(always)]
    fn compose(&self, f: Stack<V>) -> Self {
        Self { value: f.f, gradient: self.gradient.map(|g| f.d1 * g) }
    }
}
