//! Third and fourth orders on top of a second-order jet.
//!
//! Both towers hold the second-order jet of their kind, so their first three orders are its bits. The higher tensors are
//! computed at sorted slots and written to every arrangement of them, which keeps them exactly symmetric.

use super::{HeapOrder2, Jet, Number, Order2, Stack};

/// Value, gradient, Hessian and the tensors of third and fourth derivatives over `N` primaries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tower4<const N: usize, V = f64> {
    /// Value, gradient and Hessian.
    pub low: Order2<N, V>,
    pub t3: [[[V; N]; N]; N],
    pub t4: [[[[V; N]; N]; N]; N],
}

/// [`Tower4`] over any number of primaries, on the heap.
#[derive(Clone, Debug, PartialEq)]
pub struct HeapTower4<V = f64> {
    /// Value, gradient and Hessian.
    pub low: HeapOrder2<V>,
    /// Row-major, `n x n x n`.
    pub t3: Vec<V>,
    /// Row-major, `n x n x n x n`.
    pub t4: Vec<V>,
}

/// Third derivative of a product: every way to give each slot to one factor.
fn leibniz3<J: Jet>(u: &J, v: &J, [a, b, c]: [usize; 3]) -> J::Value {
    let one = |u: &J, v: &J| {
        u.gradient(a) * v.hessian(b, c) + u.gradient(b) * v.hessian(a, c) + u.gradient(c) * v.hessian(a, b)
    };
    u.value() * v.third(a, b, c) + v.value() * u.third(a, b, c) + (one(u, v) + one(v, u))
}

/// Fourth derivative of a product.
fn leibniz4<J: Jet>(u: &J, v: &J, [a, b, c, d]: [usize; 4]) -> J::Value {
    let one = |u: &J, v: &J| {
        u.gradient(a) * v.third(b, c, d)
            + u.gradient(b) * v.third(a, c, d)
            + u.gradient(c) * v.third(a, b, d)
            + u.gradient(d) * v.third(a, b, c)
    };
    let two = |u: &J, v: &J| {
        u.hessian(a, b) * v.hessian(c, d) + u.hessian(a, c) * v.hessian(b, d) + u.hessian(a, d) * v.hessian(b, c)
    };
    u.value() * v.fourth(a, b, c, d)
        + v.value() * u.fourth(a, b, c, d)
        + (one(u, v) + one(v, u))
        + (two(u, v) + two(v, u))
}

/// Third derivative of `f(x)`: one term for each partition of the slots.
fn faa3<J: Jet>(x: &J, f: &Stack<J::Value>, [a, b, c]: [usize; 3]) -> J::Value {
    let (g, h) = (|a| x.gradient(a), |a, b| x.hessian(a, b));
    f.d1 * x.third(a, b, c) + f.d2 * (g(a) * h(b, c) + g(b) * h(a, c) + g(c) * h(a, b)) + f.d3 * (g(a) * g(b) * g(c))
}

/// Fourth derivative of `f(x)`.
fn faa4<J: Jet>(x: &J, f: &Stack<J::Value>, [a, b, c, d]: [usize; 4]) -> J::Value {
    let (g, h, t) = (|a| x.gradient(a), |a, b| x.hessian(a, b), |a, b, c| x.third(a, b, c));
    let three_one = g(a) * t(b, c, d) + g(b) * t(a, c, d) + g(c) * t(a, b, d) + g(d) * t(a, b, c);
    let two_two = h(a, b) * h(c, d) + h(a, c) * h(b, d) + h(a, d) * h(b, c);
    let two_one_one = g(a) * g(b) * h(c, d)
        + g(a) * g(c) * h(b, d)
        + g(a) * g(d) * h(b, c)
        + g(b) * g(c) * h(a, d)
        + g(b) * g(d) * h(a, c)
        + g(c) * g(d) * h(a, b);
    f.d1 * x.fourth(a, b, c, d) + f.d2 * (three_one + two_two) + f.d3 * two_one_one + f.d4 * (g(a) * g(b) * g(c) * g(d))
}

/// A second-order jet with the tensors of its third and fourth derivatives, row-major over all slots.
pub trait Tower: Clone {
    type Low: Jet;

    /// Zero tensors.
    fn with_low(low: Self::Low) -> Self;
    fn low(&self) -> &Self::Low;
    /// Number of slots.
    fn size(&self) -> usize;
    fn tensors(&self) -> (&[ValueOf<Self>], &[ValueOf<Self>]);
    fn tensors_mut(&mut self) -> (&mut [ValueOf<Self>], &mut [ValueOf<Self>]);

    /// A tower from its second-order part and its entries at sorted slots.
    fn filled(
        low: Self::Low,
        third: impl Fn([usize; 3]) -> ValueOf<Self>,
        fourth: impl Fn([usize; 4]) -> ValueOf<Self>,
    ) -> Self {
        let mut out = Self::with_low(low);
        let n = out.size();
        let (t3, t4) = out.tensors_mut();
        let at = |[a, b, c]: [usize; 3]| (a * n + b) * n + c;
        for a in 0..n {
            for b in a..n {
                for c in b..n {
                    let value = third([a, b, c]);
                    arrangements([a, b, c]).into_iter().for_each(|s| t3[at(s)] = value);
                    for d in c..n {
                        let value = fourth([a, b, c, d]);
                        for (last, rest) in [(a, [b, c, d]), (b, [a, c, d]), (c, [a, b, d]), (d, [a, b, c])] {
                            arrangements(rest).into_iter().for_each(|s| t4[at(s) * n + last] = value);
                        }
                    }
                }
            }
        }
        out
    }
}

/// The number that a tower is made of.
pub type ValueOf<T> = <<T as Tower>::Low as Jet>::Value;

fn arrangements([a, b, c]: [usize; 3]) -> [[usize; 3]; 6] {
    [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]]
}

impl<const N: usize, V: Number> Tower for Tower4<N, V> {
    type Low = Order2<N, V>;

    fn with_low(low: Self::Low) -> Self {
        Self { low, t3: [[[V::default(); N]; N]; N], t4: [[[[V::default(); N]; N]; N]; N] }
    }
    fn low(&self) -> &Self::Low {
        &self.low
    }
    fn size(&self) -> usize {
        N
    }
    fn tensors(&self) -> (&[V], &[V]) {
        (self.t3.as_flattened().as_flattened(), self.t4.as_flattened().as_flattened().as_flattened())
    }
    fn tensors_mut(&mut self) -> (&mut [V], &mut [V]) {
        let t4 = self.t4.as_flattened_mut().as_flattened_mut().as_flattened_mut();
        (self.t3.as_flattened_mut().as_flattened_mut(), t4)
    }
}

impl<V: Number> Tower for HeapTower4<V> {
    type Low = HeapOrder2<V>;

    fn with_low(low: Self::Low) -> Self {
        let n = low.gradient.len();
        Self { low, t3: vec![V::default(); n.pow(3)], t4: vec![V::default(); n.pow(4)] }
    }
    fn low(&self) -> &Self::Low {
        &self.low
    }
    fn size(&self) -> usize {
        self.low.gradient.len()
    }
    fn tensors(&self) -> (&[V], &[V]) {
        (&self.t3, &self.t4)
    }
    fn tensors_mut(&mut self) -> (&mut [V], &mut [V]) {
        (&mut self.t3, &mut self.t4)
    }
}

impl<T: Tower> Jet for T {
    const ORDER: usize = 4;
    type Space = <T::Low as Jet>::Space;
    type Value = <T::Low as Jet>::Value;

    fn constant(space: Self::Space, value: Self::Value) -> Self {
        Self::with_low(Jet::constant(space, value))
    }
    fn variable(space: Self::Space, value: Self::Value, slot: usize) -> Self {
        Self::with_low(Jet::variable(space, value, slot))
    }
    fn value(&self) -> Self::Value {
        self.low().value()
    }
    fn derivatives(&self, slots: &[usize]) -> &[Self::Value] {
        let n = self.size();
        let row = slots.iter().fold(0, |row, slot| row * n + slot) * n;
        let (t3, t4) = self.tensors();
        match slots.len() {
            0 | 1 => self.low().derivatives(slots),
            2 => &t3[row..row + n],
            _ => &t4[row..row + n],
        }
    }
    fn add(&self, other: &Self) -> Self {
        Self::filled(
            self.low().add(other.low()),
            |s| third(self, s) + third(other, s),
            |s| fourth(self, s) + fourth(other, s),
        )
    }
    fn mul(&self, other: &Self) -> Self {
        Self::filled(self.low().mul(other.low()), |s| leibniz3(self, other, s), |s| leibniz4(self, other, s))
    }
    fn scale(&self, factor: Self::Value) -> Self {
        Self::filled(self.low().scale(factor), |s| factor * third(self, s), |s| factor * fourth(self, s))
    }
    fn compose(&self, f: Stack<Self::Value>) -> Self {
        Self::filled(self.low().compose(f), |s| faa3(self, &f, s), |s| faa4(self, &f, s))
    }
}

fn third<J: Jet>(jet: &J, [a, b, c]: [usize; 3]) -> J::Value {
    jet.third(a, b, c)
}

fn fourth<J: Jet>(jet: &J, [a, b, c, d]: [usize; 4]) -> J::Value {
    jet.fourth(a, b, c, d)
}
