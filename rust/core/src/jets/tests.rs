use super::*;
use proptest::prelude::*;

/// A program that uses every operation, on any jet.
fn program<J: Jet>(x: &[J; 3]) -> J {
    let n = J::Value::splat;
    let wave = x[0].sin().mul(&x[1].cos());
    let bounded = x[1].mul(&x[2]).sigmoid();
    let positive = x[2].scale(n(0.3)).exp();
    wave.add(&bounded.mul(&positive)).sub(&positive.recip().scale(n(0.7))).shift(n(0.25))
}

fn plain(x: [f64; 3]) -> f64 {
    let s = 1.0 / (1.0 + (-(x[1] * x[2])).exp());
    x[0].sin() * x[1].cos() + s * (0.3 * x[2]).exp() - 0.7 / (0.3 * x[2]).exp() + 0.25
}

fn seed<J: Jet>(space: J::Space, x: [J::Value; 3]) -> [J; 3] {
    std::array::from_fn(|a| J::variable(space, x[a], a))
}

/// The mixed derivative in some slots by central differences: the mean over all signs, each slot moved by `+-e`.
fn difference(x: [f64; 3], slots: &[usize], e: f64) -> f64 {
    let signs = 0..1u32 << slots.len();
    let total: f64 = signs
        .map(|bits| {
            let (mut y, mut sign) = (x, 1.0);
            for (i, &slot) in slots.iter().enumerate() {
                let s = if bits >> i & 1 == 1 { 1.0 } else { -1.0 };
                y[slot] += s * e;
                sign *= s;
            }
            sign * plain(y)
        })
        .sum();
    total / (2.0 * e).powi(slots.len() as i32)
}

/// The largest distance between a tensor and its differences, relative to the tensor's largest entry.
fn distance(order: u32, x: [f64; 3], e: f64, entry: impl Fn(&[usize]) -> f64) -> f64 {
    let indices = (0..3usize.pow(order)).map(|i| (0..order).map(|o| i / 3usize.pow(o) % 3).collect::<Vec<_>>());
    let pairs: Vec<(f64, f64)> = indices.map(|slots| (entry(&slots), difference(x, &slots, e))).collect();
    let scale = pairs.iter().fold(1e-3, |m: f64, (value, _)| m.max(value.abs()));
    pairs.iter().fold(0.0, |m: f64, (value, slope)| m.max((value - slope).abs())) / scale
}

fn points() -> impl Strategy<Value = [f64; 3]> {
    prop::array::uniform3(-1.5f64..1.5)
}

proptest! {
    #[test]
    fn lower_orders_agree_to_the_bit(x in points()) {
        let one = program(&seed::<Order1<3>>((), x));
        let two = program(&seed::<Order2<3>>((), x));
        let four = program(&seed::<Tower4<3>>((), x));
        let heaps = (
            program(&seed::<HeapOrder1>(3, x)),
            program(&seed::<HeapOrder2>(3, x)),
            program(&seed::<HeapTower4>(3, x)),
        );
        prop_assert!((two.value - plain(x)).abs() < 1e-13);
        prop_assert_eq!(four.low, two);
        prop_assert_eq!(one.value.to_bits(), two.value.to_bits());
        prop_assert_eq!(heaps.0.value.to_bits(), two.value.to_bits());
        prop_assert_eq!(heaps.1.value.to_bits(), two.value.to_bits());
        for a in 0..3 {
            let bits = two.gradient[a].to_bits();
            prop_assert_eq!(one.gradient[a].to_bits(), bits);
            prop_assert_eq!(four.gradient(a).to_bits(), bits);
            prop_assert_eq!(heaps.0.gradient(a).to_bits(), bits);
            prop_assert_eq!(heaps.1.gradient(a).to_bits(), bits);
            for b in 0..3 {
                let bits = two.hessian[a][b].to_bits();
                prop_assert_eq!(two.hessian[b][a].to_bits(), bits);
                prop_assert_eq!(four.hessian(a, b).to_bits(), bits);
                prop_assert_eq!(heaps.1.hessian(a, b).to_bits(), bits);
                for c in 0..3 {
                    prop_assert_eq!(heaps.2.third(a, b, c).to_bits(), four.third(a, b, c).to_bits());
                    prop_assert_eq!(four.third(c, a, b).to_bits(), four.t3[a][b][c].to_bits());
                    for d in 0..3 {
                        prop_assert_eq!(heaps.2.fourth(a, b, c, d).to_bits(), four.fourth(a, b, c, d).to_bits());
                        prop_assert_eq!(four.fourth(d, b, c, a).to_bits(), four.t4[a][b][c][d].to_bits());
                    }
                }
            }
        }
    }

    #[test]
    fn every_order_matches_differences(x in points()) {
        let tower = program(&seed::<Tower4<3>>((), x));
        prop_assert!(distance(1, x, 1e-4, |s| tower.gradient(s[0])) < 1e-6);
        prop_assert!(distance(2, x, 1e-3, |s| tower.hessian(s[0], s[1])) < 1e-5);
        prop_assert!(distance(3, x, 2e-3, |s| tower.third(s[0], s[1], s[2])) < 5e-5);
        prop_assert!(distance(4, x, 5e-3, |s| tower.fourth(s[0], s[1], s[2], s[3])) < 5e-4);
    }

    #[test]
    fn a_lane_has_the_bits_of_its_row(rows in prop::array::uniform4(points())) {
        fn compare<J: Laned + std::fmt::Debug + PartialEq>(
            space: J::Space,
            rows: [[f64; 3]; 4],
        ) -> Result<(), TestCaseError> {
            let x = std::array::from_fn(|a| F64x4(rows.map(|row| row[a])));
            let four = program(&seed::<Lanes4<J>>(space, x));
            for (lane, row) in rows.into_iter().enumerate() {
                prop_assert_eq!(J::lane(&four, lane), program(&seed::<J>(space, row)));
            }
            Ok(())
        }
        compare::<Order1<3>>((), rows)?;
        compare::<Order2<3>>((), rows)?;
        compare::<Tower4<3>>((), rows)?;
        compare::<HeapOrder1>(3, rows)?;
        compare::<HeapOrder2>(3, rows)?;
        compare::<HeapTower4>(3, rows)?;
        // and the bits themselves, which tell a zero's sign as well
        let x = std::array::from_fn(|a| F64x4(rows.map(|row| row[a])));
        let four = program(&seed::<Lanes4<Order2<3>>>((), x));
        for (lane, row) in rows.into_iter().enumerate() {
            let one = program(&seed::<Order2<3>>((), row));
            prop_assert_eq!(four.value.lane(lane).to_bits(), one.value.to_bits());
            for a in 0..3 {
                prop_assert_eq!(four.gradient[a].lane(lane).to_bits(), one.gradient[a].to_bits());
                for b in 0..3 {
                    prop_assert_eq!(four.hessian[a][b].lane(lane).to_bits(), one.hessian[a][b].to_bits());
                }
            }
        }
    }
}

#[test]
fn a_flipped_sign_in_one_entry_is_seen() {
    let x = [0.4, -0.9, 1.1];
    let tower = program(&seed::<Tower4<3>>((), x));
    let flip = |slots: &[usize], at: &[usize], value: f64| if slots == at { -value } else { value };
    let third = |at: &[usize]| distance(3, x, 2e-3, |s| flip(s, at, tower.third(s[0], s[1], s[2])));
    let fourth = |at: &[usize]| distance(4, x, 5e-3, |s| flip(s, at, tower.fourth(s[0], s[1], s[2], s[3])));
    assert!(third(&[]) < 5e-5 && third(&[0, 1, 1]) > 1e-2 && third(&[2, 1, 2]) > 1e-2);
    assert!(fourth(&[]) < 5e-4 && fourth(&[1, 2, 1, 2]) > 1e-2 && fourth(&[0, 0, 1, 1]) > 1e-2);
}

#[test]
fn the_logistic_keeps_its_digits_at_both_ends() {
    for x in [-745.0, -40.0, 40.0, 745.0] {
        let s = Tower4::<1>::variable((), x, 0).sigmoid();
        // far out, s or 1 - s is e^-|x|, and so is the size of every derivative
        let small = (-f64::abs(x)).exp();
        let expected = if x > 0.0 { 1.0 - small } else { small };
        assert!((s.value() - expected).abs() <= 1e-15 * expected, "{x}");
        for derivative in [s.gradient(0), s.hessian(0, 0).abs(), s.third(0, 0, 0), s.fourth(0, 0, 0, 0).abs()] {
            assert!((derivative - small).abs() <= 1e-12 * small, "{x}: {derivative} for {small}");
        }
    }
}
