//! Jets of many columns, laid out as arrays.

use crate::jets::{HeapOrder2, HeapTower4, Jet, Number};

/// The jets of several columns: for each order one array, column first, then one axis of primaries an order.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedJets {
    columns: usize,
    primaries: usize,
    /// `orders[o]` is row-major, `columns x primaries^o`.
    orders: Vec<Vec<f64>>,
}

impl PackedJets {
    pub(super) fn zeros(columns: usize, primaries: usize, order: usize) -> Self {
        let orders = (0..=order).map(|o| vec![0.0; columns * primaries.pow(o as u32)]).collect();
        Self { columns, primaries, orders }
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
    pub fn derivatives(&self, order: usize) -> &[f64] {
        &self.orders[order]
    }

    /// The arrays of all orders, lowest first.
    pub fn into_orders(self) -> Vec<Vec<f64>> {
        self.orders
    }

    /// One column's jet, from a packing that holds four orders.
    pub(super) fn into_tower(self) -> HeapTower4 {
        let [value, gradient, hessian, t3, t4] = <[_; 5]>::try_from(self.orders).expect("a tower holds four orders");
        HeapTower4 { low: HeapOrder2 { value: value[0], gradient, hessian }, t3, t4 }
    }
}

/// Writes a jet of `L` rows as column `c` of the rows' packings.
#[inline(always)]
pub(super) fn write<J: Jet, const L: usize>(jet: &J, c: usize, out: &mut [PackedJets; L]) {
    let n = out[0].primaries;
    for (lane, packed) in out.iter_mut().enumerate() {
        packed.orders[0][c] = jet.value().lane(lane);
        for a in 0..n {
            packed.orders[1][c * n + a] = jet.gradient(a).lane(lane);
        }
        if J::ORDER >= 2 {
            let block = &mut packed.orders[2][c * n * n..(c + 1) * n * n];
            for (a, row) in block.chunks_exact_mut(n.max(1)).enumerate() {
                for (b, entry) in row.iter_mut().enumerate() {
                    *entry = jet.hessian(a, b).lane(lane);
                }
            }
        }
        if J::ORDER >= 4 {
            for i in 0..n.pow(3) {
                let (a, b, e) = (i / (n * n), i / n % n, i % n);
                packed.orders[3][c * n.pow(3) + i] = jet.third(a, b, e).lane(lane);
                for d in 0..n {
                    packed.orders[4][(c * n.pow(3) + i) * n + d] = jet.fourth(a, b, e, d).lane(lane);
                }
            }
        }
    }
}
