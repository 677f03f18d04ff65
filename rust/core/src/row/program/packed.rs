//! Jets of many columns, laid out as arrays.

use crate::jets::{F64x4, HeapOrder2, HeapTower4, Number};
use std::ops::Range;

/// The jets of several columns: for each order one array, column first, then one axis of primaries an order.
///
/// `PackedJets<F64x4>` holds four rows, side by side in every entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackedJets<V = f64> {
    columns: usize,
    primaries: usize,
    /// `orders[o]` is row-major, `columns x primaries^o`.
    orders: Vec<Vec<V>>,
}

impl<V: Number> PackedJets<V> {
    /// The arrays of all orders, lowest first.
    pub fn into_orders(self) -> Vec<Vec<V>> {
        self.orders
    }

    /// Makes room, with anything in it; what is already allocated is used again.
    pub(super) fn reset(&mut self, columns: usize, primaries: usize, order: usize) {
        (self.columns, self.primaries) = (columns, primaries);
        self.orders.resize_with(order + 1, Vec::new);
        for (o, values) in self.orders.iter_mut().enumerate() {
            values.resize(columns * primaries.pow(o as u32), V::default());
        }
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of primaries.
    pub fn primaries(&self) -> usize {
        self.primaries
    }

    /// The highest order of derivatives held.
    pub fn order(&self) -> usize {
        self.orders.len() - 1
    }

    /// All derivatives of one order, row-major: `columns x primaries x ... x primaries`.
    pub fn derivatives(&self, order: usize) -> &[V] {
        &self.orders[order]
    }

    /// The derivatives of one order in some columns, to be written.
    #[inline(always)]
    pub(super) fn columns_mut(&mut self, order: usize, columns: Range<usize>) -> &mut [V] {
        let size = self.primaries.pow(order as u32);
        &mut self.orders[order][columns.start * size..columns.end * size]
    }

    /// Third and fourth derivatives of one column, all zero.
    pub(super) fn high_mut(&mut self, c: usize) -> HighMut<'_, V> {
        let n = self.primaries;
        let [_, _, _, t3, t4] = &mut self.orders[..] else { unreachable!("a packing of four orders") };
        let t3 = &mut t3[c * n.pow(3)..(c + 1) * n.pow(3)];
        let t4 = &mut t4[c * n.pow(4)..(c + 1) * n.pow(4)];
        t3.fill(V::default());
        t4.fill(V::default());
        HighMut { n, t3, t4 }
    }
}

/// Third and fourth derivatives of one column, to be summed.
pub(super) struct HighMut<'a, V> {
    /// Number of primaries.
    n: usize,
    t3: &'a mut [V],
    t4: &'a mut [V],
}

impl<V: Number> HighMut<'_, V> {
    /// Adds a function's derivatives over its variables, which have these slots.
    pub fn add(&mut self, slots: &[usize], derivative: impl Fn(&[usize]) -> V) {
        for (i, a) in slots.iter().enumerate() {
            for (j, b) in slots.iter().enumerate() {
                for (k, c) in slots.iter().enumerate() {
                    let at = (a * self.n + b) * self.n + c;
                    self.t3[at] += derivative(&[i, j, k]);
                    for (l, d) in slots.iter().enumerate() {
                        self.t4[at * self.n + d] += derivative(&[i, j, k, l]);
                    }
                }
            }
        }
    }
}

/// The jets of four rows.
#[derive(Clone, Debug, PartialEq)]
pub enum PackedBatch4 {
    /// Rows that ran together, side by side in every entry.
    Lanes(PackedJets<F64x4>),
    /// Rows that could not, one by one.
    Rows([PackedJets; 4]),
}

impl Default for PackedBatch4 {
    fn default() -> Self {
        Self::Lanes(PackedJets::default())
    }
}

impl PackedBatch4 {
    pub(super) fn lanes_mut(&mut self) -> &mut PackedJets<F64x4> {
        if let Self::Rows(_) = self {
            *self = Self::default();
        }
        match self {
            Self::Lanes(lanes) => lanes,
            Self::Rows(_) => unreachable!("replaced above"),
        }
    }

    pub(super) fn rows_mut(&mut self) -> &mut [PackedJets; 4] {
        if let Self::Lanes(_) = self {
            *self = Self::Rows(Default::default());
        }
        match self {
            Self::Rows(rows) => rows,
            Self::Lanes(_) => unreachable!("replaced above"),
        }
    }

    /// Each row on its own.
    pub fn into_rows(self) -> [PackedJets; 4] {
        let lanes = match self {
            Self::Rows(rows) => return rows,
            Self::Lanes(lanes) => lanes,
        };
        let row = |lane: usize, values: &[F64x4]| values.iter().map(|x| x.0[lane]).collect();
        std::array::from_fn(|lane| PackedJets {
            columns: lanes.columns,
            primaries: lanes.primaries,
            orders: lanes.orders.iter().map(|values| row(lane, values)).collect(),
        })
    }
}

impl PackedJets {
    /// One column's jet, from a packing that holds four orders of one column.
    pub(super) fn into_tower(self) -> HeapTower4 {
        let [value, gradient, hessian, t3, t4] = <[_; 5]>::try_from(self.orders).expect("a tower holds four orders");
        HeapTower4 { low: HeapOrder2 { value: value[0], gradient, hessian }, t3, t4 }
    }
}
