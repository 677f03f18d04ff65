use super::{Jet, Number, Stack};

/// Value and gradient over any number of primaries, on the heap.
#[derive(Clone, Debug, PartialEq)]
pub struct HeapOrder1<V = f64> {
    pub value: V,
    pub gradient: Vec<V>,
}

impl<V: Number> Jet for HeapOrder1<V> {
    const ORDER: usize = 1;
    type Space = usize;
    type Value = V;

    fn constant(n: usize, value: V) -> Self {
        Self { value, gradient: vec![V::default(); n] }
    }
    fn variable(n: usize, value: V, slot: usize) -> Self {
        let mut jet = Self::constant(n, value);
        jet.gradient[slot] = V::splat(1.0);
        jet
    }
    fn value(&self) -> V {
        self.value
    }
    fn derivatives(&self, _: &[usize]) -> &[V] {
        &self.gradient
    }
    fn add(&self, other: &Self) -> Self {
        Self { value: self.value + other.value, gradient: paired(&self.gradient, &other.gradient, |a, b| a + b) }
    }
    fn mul(&self, other: &Self) -> Self {
        let (u, v) = (self, other);
        Self { value: u.value * v.value, gradient: paired(&u.gradient, &v.gradient, |a, b| u.value * b + v.value * a) }
    }
    fn scale(&self, factor: V) -> Self {
        Self { value: factor * self.value, gradient: each(&self.gradient, |g| factor * g) }
    }
    fn compose(&self, f: Stack<V>) -> Self {
        Self { value: f.f, gradient: each(&self.gradient, |g| f.d1 * g) }
    }
}

/// Value, gradient and Hessian over any number of primaries, on the heap.
#[derive(Clone, Debug, PartialEq)]
pub struct HeapOrder2<V = f64> {
    pub value: V,
    pub gradient: Vec<V>,
    /// Row-major, `n x n`.
    pub hessian: Vec<V>,
}

fn paired<V: Number>(x: &[V], y: &[V], f: impl Fn(V, V) -> V) -> Vec<V> {
    x.iter().zip(y).map(|(x, y)| f(*x, *y)).collect()
}

fn each<V: Number>(x: &[V], f: impl Fn(V) -> V) -> Vec<V> {
    x.iter().map(|x| f(*x)).collect()
}

impl<V: Number> HeapOrder2<V> {
    fn from_hessian(value: V, gradient: Vec<V>, hessian: impl Fn(usize, usize) -> V) -> Self {
        let n = gradient.len();
        let hessian = (0..n * n).map(|i| hessian(i / n, i % n)).collect();
        Self { value, gradient, hessian }
    }

    fn at(&self, a: usize, b: usize) -> V {
        self.hessian[a * self.gradient.len() + b]
    }
}

impl<V: Number> Jet for HeapOrder2<V> {
    const ORDER: usize = 2;
    type Space = usize;
    type Value = V;

    fn constant(n: usize, value: V) -> Self {
        Self { value, gradient: vec![V::default(); n], hessian: vec![V::default(); n * n] }
    }
    fn variable(n: usize, value: V, slot: usize) -> Self {
        let mut jet = Self::constant(n, value);
        jet.gradient[slot] = V::splat(1.0);
        jet
    }
    fn value(&self) -> V {
        self.value
    }
    fn derivatives(&self, slots: &[usize]) -> &[V] {
        let n = self.gradient.len();
        match *slots {
            [] => &self.gradient,
            [a, ..] => &self.hessian[a * n..(a + 1) * n],
        }
    }
    fn add(&self, other: &Self) -> Self {
        let gradient = paired(&self.gradient, &other.gradient, |a, b| a + b);
        Self::from_hessian(self.value + other.value, gradient, |a, b| self.at(a, b) + other.at(a, b))
    }
    fn mul(&self, other: &Self) -> Self {
        let (u, v) = (self, other);
        let gradient = paired(&u.gradient, &v.gradient, |a, b| u.value * b + v.value * a);
        Self::from_hessian(u.value * v.value, gradient, |a, b| {
            u.value * v.at(a, b)
                + v.value * u.at(a, b)
                + (u.gradient[a] * v.gradient[b] + u.gradient[b] * v.gradient[a])
        })
    }
    fn scale(&self, factor: V) -> Self {
        let gradient = each(&self.gradient, |g| factor * g);
        Self::from_hessian(factor * self.value, gradient, |a, b| factor * self.at(a, b))
    }
    fn compose(&self, f: Stack<V>) -> Self {
        let g = &self.gradient;
        Self::from_hessian(f.f, each(g, |g| f.d1 * g), |a, b| f.d1 * self.at(a, b) + f.d2 * (g[a] * g[b]))
    }
}
