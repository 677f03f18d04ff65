use super::{Jet, Local, Number, Stack};

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
    fn gradient(&self, a: usize) -> V {
        self.gradient[a]
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
    #[inline(always)]
    fn combine<'a>(&mut self, slots: &[usize], weights: &[V], jets: impl Iterator<Item = &'a Self> + Clone)
    where
        Self: 'a,
    {
        self.value = weighted(weights, jets.clone(), |jet| jet.value);
        for &a in slots {
            self.gradient[a] = weighted(weights, jets.clone(), |jet| jet.gradient[a]);
        }
    }
    #[inline(always)]
    fn add_product(&mut self, u: Local<'_, Self>, v: Local<'_, Self>) {
        self.value += u.jet.value * v.jet.value;
        for &a in u.slots {
            self.gradient[a] += u.jet.gradient[a] * v.jet.value;
        }
        for &a in v.slots {
            self.gradient[a] += u.jet.value * v.jet.gradient[a];
        }
    }
}

/// `sum_b weights[b] * entry(jets[b])`, from the left.
#[inline(always)]
pub(super) fn weighted<'a, J: 'a, V: Number>(
    weights: &[V],
    jets: impl Iterator<Item = &'a J>,
    entry: impl Fn(&J) -> V,
) -> V {
    let mut sum = V::default();
    for (weight, jet) in weights.iter().zip(jets) {
        sum += *weight * entry(jet);
    }
    sum
}
