use super::*;
use proptest::prelude::*;

/// A program that uses every operation, on any jet.
fn program<J: Jet<Value = f64>>(x: &[J; 3]) -> J {
    let wave = x[0].sin().mul(&x[1].cos());
    let bounded = x[1].mul(&x[2]).sigmoid();
    let positive = x[2].scale(0.3).exp();
    wave.add(&bounded.mul(&positive)).sub(&positive.recip().scale(0.7))
}

fn plain(x: [f64; 3]) -> f64 {
    let s = 1.0 / (1.0 + (-(x[1] * x[2])).exp());
    x[0].sin() * x[1].cos() + s * (0.3 * x[2]).exp() - 0.7 / (0.3 * x[2]).exp()
}

fn seed<J: Jet<Value = f64>>(space: J::Space, x: [f64; 3]) -> [J; 3] {
    std::array::from_fn(|a| J::variable(space, x[a], a))
}

proptest! {
    #[test]
    fn orders_agree_and_match_differences(x in prop::array::uniform3(-1.5f64..1.5)) {
        let one = program(&seed::<Order1<3>>((), x));
        let two = program(&seed::<Order2<3>>((), x));
        let heap = program(&seed::<HeapOrder2>(3, x));
        prop_assert!((two.value - plain(x)).abs() < 1e-13);
        prop_assert_eq!(one.value.to_bits(), two.value.to_bits());
        prop_assert_eq!(heap.value.to_bits(), two.value.to_bits());
        let e = 1e-4;
        let shifted = |a: usize, s: f64, b: usize, u: f64| { let mut y = x; y[a] += s * e; y[b] += u * e; plain(y) };
        for a in 0..3 {
            prop_assert_eq!(one.gradient[a].to_bits(), two.gradient[a].to_bits());
            prop_assert_eq!(heap.gradient[a].to_bits(), two.gradient[a].to_bits());
            let slope = (shifted(a, 1.0, a, 0.0) - shifted(a, -1.0, a, 0.0)) / (2.0 * e);
            prop_assert!((slope - two.gradient[a]).abs() < 1e-6);
            for b in 0..3 {
                prop_assert_eq!(heap.hessian(a, b).to_bits(), two.hessian[a][b].to_bits());
                let mixed = (shifted(a, 1.0, b, 1.0) - shifted(a, 1.0, b, -1.0) - shifted(a, -1.0, b, 1.0)
                    + shifted(a, -1.0, b, -1.0)) / (4.0 * e * e);
                prop_assert!((mixed - two.hessian[a][b]).abs() < 1e-5);
            }
        }
    }
}
