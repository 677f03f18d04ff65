use super::{F64x4, HeapOrder1, HeapOrder2, HeapTower4, Jet, Order1, Order2, Tower4};

/// A jet of one row that has a twin for four rows.
pub trait Laned: Jet<Value = f64> {
    /// The same jet with four rows side by side.
    type Four: Jet<Value = F64x4, Space = Self::Space>;

    /// The row in one lane.
    fn lane(four: &Self::Four, lane: usize) -> Self;
}

/// Four rows of a jet in vector lanes, `Lanes4<Order2<8>>` for instance.
pub type Lanes4<J> = <J as Laned>::Four;

impl<const N: usize> Laned for Order1<N> {
    type Four = Order1<N, F64x4>;

    fn lane(four: &Self::Four, lane: usize) -> Self {
        Self { value: four.value.0[lane], gradient: four.gradient.map(|x| x.0[lane]) }
    }
}

impl<const N: usize> Laned for Order2<N> {
    type Four = Order2<N, F64x4>;

    fn lane(four: &Self::Four, lane: usize) -> Self {
        Self {
            value: four.value.0[lane],
            gradient: four.gradient.map(|x| x.0[lane]),
            hessian: four.hessian.map(|row| row.map(|x| x.0[lane])),
        }
    }
}

impl<const N: usize> Laned for Tower4<N> {
    type Four = Tower4<N, F64x4>;

    fn lane(four: &Self::Four, lane: usize) -> Self {
        Self {
            low: Order2::lane(&four.low, lane),
            t3: four.t3.map(|block| block.map(|row| row.map(|x| x.0[lane]))),
            t4: four.t4.map(|cube| cube.map(|block| block.map(|row| row.map(|x| x.0[lane])))),
        }
    }
}

fn one_lane(values: &[F64x4], lane: usize) -> Vec<f64> {
    values.iter().map(|x| x.0[lane]).collect()
}

impl Laned for HeapOrder1 {
    type Four = HeapOrder1<F64x4>;

    fn lane(four: &Self::Four, lane: usize) -> Self {
        Self { value: four.value.0[lane], gradient: one_lane(&four.gradient, lane) }
    }
}

impl Laned for HeapOrder2 {
    type Four = HeapOrder2<F64x4>;

    fn lane(four: &Self::Four, lane: usize) -> Self {
        Self {
            value: four.value.0[lane],
            gradient: one_lane(&four.gradient, lane),
            hessian: one_lane(&four.hessian, lane),
        }
    }
}

impl Laned for HeapTower4 {
    type Four = HeapTower4<F64x4>;

    fn lane(four: &Self::Four, lane: usize) -> Self {
        Self { low: HeapOrder2::lane(&four.low, lane), t3: one_lane(&four.t3, lane), t4: one_lane(&four.t4, lane) }
    }
}
