//! Values as processes send them to each other: what is read is what was written, bit for bit.

use ndarray::Array2;

/// A value that can be sent.
pub trait Wire: Sized {
    /// Whether there is anything to send.
    const SENT: bool = true;

    fn put(&self, out: &mut Vec<u8>);

    /// Takes a value from the front of some bytes; `None` where they end too soon or mean nothing.
    fn get(from: &mut &[u8]) -> Option<Self>;

    fn put_all(values: &[Self], out: &mut Vec<u8>) {
        values.iter().for_each(|value| value.put(out));
    }

    fn get_all(len: usize, from: &mut &[u8]) -> Option<Vec<Self>> {
        (0..len).map(|_| Self::get(from)).collect()
    }
}

/// What stays in the process that made it: nothing of it is sent, and elsewhere it is missing.
#[derive(Debug)]
pub struct Here<T>(pub Option<T>);

impl<T> Here<T> {
    pub fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> Wire for Here<T> {
    const SENT: bool = false;

    fn put(&self, _: &mut Vec<u8>) {}

    fn get(_: &mut &[u8]) -> Option<Self> {
        Some(Self(None))
    }
}

impl Wire for () {
    const SENT: bool = false;

    fn put(&self, _: &mut Vec<u8>) {}

    fn get(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

/// Sends a struct field by field; those after a semicolon stay where they are, and are their default elsewhere.
macro_rules! wired {
    ($type:ident { $($sent:ident),* $(; $($stays:ident),*)? }) => {
        impl $crate::wire::Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::wire::Wire::put(&self.$sent, out);)*
            }

            fn get(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $($sent: $crate::wire::Wire::get(from)?,)* $($($stays: Default::default(),)*)? })
            }
        }
    };
}
pub(crate) use wired;

fn split<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(head)
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn get(from: &mut &[u8]) -> Option<Self> {
                const SIZE: usize = size_of::<$type>();
                split(from, SIZE).map(|bytes| Self::from_le_bytes(bytes.try_into().expect("SIZE bytes")))
            }

            fn get_all(len: usize, from: &mut &[u8]) -> Option<Vec<Self>> {
                const SIZE: usize = size_of::<$type>();
                let bytes = split(from, len.checked_mul(SIZE)?)?;
                Some(bytes.chunks_exact(SIZE).map(|b| Self::from_le_bytes(b.try_into().expect("SIZE bytes"))).collect())
            }
        }
    )*};
}
number!(f64, u64, u32, u8);

impl Wire for usize {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u64).put(out);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        u64::get(from)?.try_into().ok()
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        match u8::get(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        let len = usize::get(from)?;
        split(from, len).and_then(|bytes| Self::from_utf8(bytes.to_vec()).ok())
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        T::put_all(self, out);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        let len = usize::get(from)?;
        T::get_all(len, from)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::get(from)? { Some(T::get(from)?) } else { None })
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_ok().put(out);
        match self {
            Ok(value) => value.put(out),
            Err(error) => error.put(out),
        }
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::get(from)? { Ok(T::get(from)?) } else { Err(E::get(from)?) })
    }
}

impl Wire for Array2<f64> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.nrows(), self.ncols()).put(out);
        match self.as_slice() {
            Some(values) => f64::put_all(values, out),
            None => self.iter().for_each(|value| value.put(out)),
        }
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        let (n, p) = <(usize, usize)>::get(from)?;
        let values = f64::get_all(n.checked_mul(p)?, from)?;
        Self::from_shape_vec((n, p), values).ok()
    }
}

macro_rules! tuple {
    ($($name:ident $at:tt),*) => {
        impl<$($name: Wire),*> Wire for ($($name,)*) {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$at.put(out);)*
            }

            fn get(from: &mut &[u8]) -> Option<Self> {
                Some(($($name::get(from)?,)*))
            }
        }
    };
}
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    fn same<T: Wire + PartialEq + Debug>(value: T) {
        let mut bytes = Vec::new();
        value.put(&mut bytes);
        let mut left = &bytes[..];
        assert_eq!(T::get(&mut left).as_ref(), Some(&value));
        assert!(left.is_empty());
        // what is cut short is no value
        for end in 0..bytes.len() {
            assert_eq!(T::get(&mut &bytes[..end]), None);
        }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        same(vec![1.5, -0.0, f64::MIN_POSITIVE / 4.0, f64::INFINITY]);
        same((7usize, true, String::from("ünicode"), vec![vec![3u32], vec![]]));
        same(Some(Array2::from_shape_fn((3, 2), |(i, j)| (i as f64 - j as f64).exp())));
        same((None::<f64>, Array2::<f64>::zeros((0, 4))));
        same(Ok::<u64, String>(5));
        same(Err::<u64, String>("no".into()));
    }

    #[test]
    fn every_bit_of_a_number_is_kept() {
        let odd = f64::from_bits(0x7ff8_0000_dead_beef);
        let mut bytes = Vec::new();
        odd.put(&mut bytes);
        assert_eq!(f64::get(&mut &bytes[..]).map(f64::to_bits), Some(odd.to_bits()));
        let turned = Array2::from_shape_fn((2, 3), |(i, j)| (3 * i + j) as f64).reversed_axes();
        bytes.clear();
        turned.put(&mut bytes);
        assert_eq!(Array2::get(&mut &bytes[..]), Some(turned));
    }

    #[test]
    fn what_stays_is_missing_elsewhere() {
        let mut bytes = Vec::new();
        (Here::new(4.0), 2.0).put(&mut bytes);
        assert_eq!(bytes.len(), 8);
        let (here, sent) = <(Here<f64>, f64)>::get(&mut &bytes[..]).unwrap();
        assert_eq!((here.0, sent), (None, 2.0));
    }
}
