use std::fmt::Debug;
use std::ops::{Add, AddAssign, Mul, Neg, Sub};

/// What a jet's entries are made of: one `f64`, or one for each of several rows.
///
/// Every operation acts on each lane as it does on a plain `f64`, multiplications and additions stay apart, and functions
/// are called once a lane. So a lane holds the bits that its row alone would give.
pub trait Number:
    Copy
    + Debug
    + Default
    + PartialEq
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + AddAssign
    + Mul<Output = Self>
    + Neg<Output = Self>
    + Sub<Output = Self>
{
    /// Number of rows.
    const LANES: usize;

    /// The same value in every lane.
    fn splat(x: f64) -> Self;
    /// One value for each lane.
    fn gather(row: impl FnMut(usize) -> f64) -> Self;
    /// The value of one lane.
    fn lane(self, lane: usize) -> f64;
    /// Applies a function to each lane.
    #[inline(always)]
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self::gather(|i| f(self.lane(i)))
    }
}

impl Number for f64 {
    const LANES: usize = 1;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn gather(mut row: impl FnMut(usize) -> f64) -> Self {
        row(0)
    }
    #[inline(always)]
    fn lane(self, _: usize) -> f64 {
        self
    }
}

/// Four rows side by side, one vector register wide where the machine has such registers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(align(32))]
pub struct F64x4(pub [f64; 4]);

impl Number for F64x4 {
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    fn gather(row: impl FnMut(usize) -> f64) -> Self {
        Self(std::array::from_fn(row))
    }
    #[inline(always)]
    fn lane(self, lane: usize) -> f64 {
        self.0[lane]
    }
}

/// One operator, lane by lane.
macro_rules! lanewise {
    ($operator:ident, $method:ident) => {
        impl $operator for F64x4 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i].$method(other.0[i])))
            }
        }
    };
}

lanewise!(Add, add);
lanewise!(Sub, sub);
lanewise!(Mul, mul);

impl AddAssign for F64x4 {
    #[inline(always)]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for F64x4 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(self.0.map(|x| -x))
    }
}
