//! Truncated Taylor values over seeded variables ("primaries").
//!
//! One trait, so that a program written once yields its value and its derivatives. [`Order1`], [`Order2`] and [`Tower4`]
//! have their number of primaries fixed by the compiler; [`HeapOrder1`], [`HeapOrder2`] and [`HeapTower4`] take over above
//! the compiled sizes. All of them hold one row, or four in the lanes of [`F64x4`] ([`Lanes4`]): the arithmetic is the
//! same text for both, so a lane has the bits of its row alone.

mod heap;
mod lanes4;
mod number;
mod order1;
mod order2;
mod tower4;

pub use heap::{HeapOrder1, HeapOrder2};
pub use lanes4::{Laned, Lanes4};
pub use number::{F64x4, Number};
pub use order1::Order1;
pub use order2::Order2;
pub use tower4::{HeapTower4, Tower4};

/// A function's value and first four derivatives at a point, for [`Jet::compose`].
#[derive(Clone, Copy, Debug)]
pub struct Stack<V = f64> {
    pub f: V,
    pub d1: V,
    pub d2: V,
    pub d3: V,
    pub d4: V,
}

/// A truncated Taylor value.
///
/// Derivatives that a type does not carry read as zero.
pub trait Jet: Clone {
    /// The highest order of derivatives that is carried.
    const ORDER: usize;
    /// What fixes the number of primaries: `()` where the type does, a count on the heap.
    type Space: Copy;
    /// One row's number, or several rows' side by side.
    type Value: Number;

    /// A value that depends on nothing.
    fn constant(space: Self::Space, value: Self::Value) -> Self;
    /// The primary in a slot, at a value.
    fn variable(space: Self::Space, value: Self::Value, slot: usize) -> Self;
    /// The value itself.
    fn value(&self) -> Self::Value;
    /// Derivatives in some slots and then in every slot, at most [`Self::ORDER`] in all: the gradient for none, a row of the
    /// Hessian for one.
    fn derivatives(&self, slots: &[usize]) -> &[Self::Value];
    /// Sum.
    fn add(&self, other: &Self) -> Self;
    /// Leibniz' rule.
    fn mul(&self, other: &Self) -> Self;
    /// Product with a constant.
    fn scale(&self, factor: Self::Value) -> Self;
    /// Faa di Bruno's rule: the jet of `f(self)`, given `f` and its derivatives at the value.
    fn compose(&self, f: Stack<Self::Value>) -> Self;

    /// First derivative in a slot.
    #[inline(always)]
    fn gradient(&self, a: usize) -> Self::Value {
        self.derivatives(&[])[a]
    }
    /// Second derivative in two slots.
    #[inline(always)]
    fn hessian(&self, a: usize, b: usize) -> Self::Value {
        match Self::ORDER >= 2 {
            true => self.derivatives(&[a])[b],
            false => Self::Value::default(),
        }
    }
    /// Third derivative in three slots.
    #[inline(always)]
    fn third(&self, a: usize, b: usize, c: usize) -> Self::Value {
        match Self::ORDER >= 3 {
            true => self.derivatives(&[a, b])[c],
            false => Self::Value::default(),
        }
    }
    /// Fourth derivative in four slots.
    #[inline(always)]
    fn fourth(&self, a: usize, b: usize, c: usize, d: usize) -> Self::Value {
        match Self::ORDER >= 4 {
            true => self.derivatives(&[a, b, c])[d],
            false => Self::Value::default(),
        }
    }
    /// Difference.
    #[inline(always)]
    fn sub(&self, other: &Self) -> Self {
        self.add(&other.scale(-Self::Value::splat(1.0)))
    }
    /// Adds a constant.
    #[inline(always)]
    fn shift(&self, by: Self::Value) -> Self {
        let zero = Self::Value::default();
        self.compose(Stack { f: self.value() + by, d1: Self::Value::splat(1.0), d2: zero, d3: zero, d4: zero })
    }
    /// Exponential.
    #[inline(always)]
    fn exp(&self) -> Self {
        let e = self.value().map(f64::exp);
        self.compose(Stack { f: e, d1: e, d2: e, d3: e, d4: e })
    }
    /// Reciprocal.
    #[inline(always)]
    fn recip(&self) -> Self {
        let r = self.value().map(|x| 1.0 / x);
        let n = Self::Value::splat;
        let d1 = -r * r;
        let d2 = n(2.0) * r * r * r;
        let d3 = n(-3.0) * r * d2;
        self.compose(Stack { f: r, d1, d2, d3, d4: n(-4.0) * r * d3 })
    }
    /// The logistic function, in the branch that does not overflow.
    #[inline(always)]
    fn sigmoid(&self) -> Self {
        let n = Self::Value::splat;
        // the smaller of s and 1 - s from e^-|x|, so that neither loses digits at the ends
        let e = self.value().map(|x| (-x.abs()).exp());
        let larger = e.map(|e| 1.0 / (1.0 + e));
        let smaller = e * larger;
        let sign = self.value().map(|x| if x >= 0.0 { 1.0 } else { -1.0 });
        let f = Self::Value::gather(|i| if sign.lane(i) > 0.0 { larger.lane(i) } else { smaller.lane(i) });
        let d1 = larger * smaller;
        let bend = sign * (smaller - larger);
        let d2 = d1 * bend;
        let (d3, d4) = (d1 * (n(1.0) - n(6.0) * d1), d2 * (n(1.0) - n(12.0) * d1));
        self.compose(Stack { f, d1, d2, d3, d4 })
    }
    /// Sine.
    #[inline(always)]
    fn sin(&self) -> Self {
        let (s, c) = (self.value().map(f64::sin), self.value().map(f64::cos));
        self.compose(Stack { f: s, d1: c, d2: -s, d3: -c, d4: s })
    }
    /// Cosine.
    #[inline(always)]
    fn cos(&self) -> Self {
        let (s, c) = (self.value().map(f64::sin), self.value().map(f64::cos));
        self.compose(Stack { f: c, d1: -s, d2: -c, d3: s, d4: c })
    }
}

#[cfg(test)]
mod tests;
