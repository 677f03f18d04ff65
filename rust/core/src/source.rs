//! Where the rows of a problem are kept: in memory, or in a file from which a pass reads a few at a time.
//!
//! Both give the same numbers, to the last bit: a row is widened to f64 and the mean subtracted, in this order.

use crate::errors::ShapeError;
use ndarray::{s, Array1, Array2, ArrayView2, CowArray, Ix2};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// How a value is written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32 { big_endian: bool },
    F64 { big_endian: bool },
}

impl Element {
    /// Bytes of one value.
    fn size(self) -> usize {
        match self {
            Self::F32 { .. } => 4,
            Self::F64 { .. } => 8,
        }
    }

    fn widen(self, bytes: &[u8], out: &mut [f64]) {
        fn each<const N: usize>(bytes: &[u8], out: &mut [f64], value: impl Fn([u8; N]) -> f64) {
            for (o, b) in out.iter_mut().zip(bytes.chunks_exact(N)) {
                *o = value(b.try_into().expect("chunks of N bytes"));
            }
        }
        match self {
            Self::F32 { big_endian: false } => each(bytes, out, |b| f64::from(f32::from_le_bytes(b))),
            Self::F32 { big_endian: true } => each(bytes, out, |b| f64::from(f32::from_be_bytes(b))),
            Self::F64 { big_endian: false } => each(bytes, out, f64::from_le_bytes),
            Self::F64 { big_endian: true } => each(bytes, out, f64::from_be_bytes),
        }
    }
}

/// A matrix in a file, row after row.
#[derive(Debug)]
pub struct RowFile {
    file: File,
    path: PathBuf,
    offset: u64,
    element: Element,
    dim: (usize, usize),
    /// The first error of reading. Rows that cannot be read are NaN, which no step accepts.
    failed: Mutex<Option<io::Error>>,
}

impl RowFile {
    /// Opens a file that holds n x p values from a byte on; an error when it is shorter.
    pub fn open(path: &Path, offset: u64, element: Element, dim: (usize, usize)) -> io::Result<Self> {
        let file = File::open(path)?;
        let values = (dim.0 as u64).checked_mul(dim.1 as u64).and_then(|v| v.checked_mul(element.size() as u64));
        let end = values.and_then(|v| v.checked_add(offset));
        let length = file.metadata()?.len();
        if end.is_none_or(|end| end > length) {
            let what = format!("{} x {} values from byte {offset} on do not fit its {length} bytes", dim.0, dim.1);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        Ok(Self { file, path: path.to_path_buf(), offset, element, dim, failed: Mutex::new(None) })
    }

    fn rows(&self, range: Range<usize>) -> Array2<f64> {
        let (p, size) = (self.dim.1, self.element.size());
        let mut bytes = vec![0; range.len() * p * size];
        let mut out = Array2::zeros((range.len(), p));
        let at = self.offset + (range.start * p * size) as u64;
        match read_at(&self.file, &mut bytes, at) {
            Ok(()) => self.element.widen(&bytes, out.as_slice_mut().expect("standard layout")),
            Err(error) => {
                out.fill(f64::NAN);
                let error = io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
                let mut failed = self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                failed.get_or_insert(error);
            }
        }
        out
    }

    /// The first error of reading since the last call.
    pub fn take_error(&self) -> Option<io::Error> {
        self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                at += read as u64;
            }
        }
    }
    Ok(())
}

/// The rows of a problem, as they were given.
#[derive(Debug)]
pub enum Source {
    Memory(Array2<f64>),
    File(RowFile),
}

impl From<Array2<f64>> for Source {
    fn from(data: Array2<f64>) -> Self {
        Self::Memory(if data.is_standard_layout() { data } else { data.as_standard_layout().into_owned() })
    }
}

/// Rows with their mean subtracted.
#[derive(Debug)]
pub struct CentredRows {
    source: Source,
    mean: Array1<f64>,
}

impl CentredRows {
    /// Subtracts the column means unless `centre` is false. Refuses values that are not finite.
    pub fn new(mut source: Source, centre: bool) -> Result<Self, ShapeError> {
        let (n, p) = source.dim();
        let mut sum = Array1::<f64>::zeros(p);
        for range in passes((n, p)) {
            let rows = source.raw(range.clone());
            if let Some((i, c)) =
                (0..range.len()).flat_map(|i| (0..p).map(move |c| (i, c))).find(|&(i, c)| !rows[[i, c]].is_finite())
            {
                let found = source.error().unwrap_or_else(|| {
                    format!("data must be finite; entry [{}, {c}] is {}", range.start + i, rows[[i, c]])
                });
                return Err(ShapeError::value(found));
            }
            for row in rows.rows() {
                sum += &row;
            }
        }
        let mean = if centre { sum / n.max(1) as f64 } else { Array1::zeros(p) };
        if let (Source::Memory(data), true) = (&mut source, centre) {
            *data -= &mean;
        }
        Ok(Self { source, mean })
    }

    pub fn dim(&self) -> (usize, usize) {
        self.source.dim()
    }

    pub fn in_memory(&self) -> bool {
        matches!(self.source, Source::Memory(_))
    }

    /// What was subtracted.
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
    }

    pub fn rows(&self, range: Range<usize>) -> CowArray<'_, f64, Ix2> {
        match &self.source {
            Source::Memory(data) => data.slice(s![range, ..]).into(),
            Source::File(file) => {
                let mut rows = file.rows(range);
                rows -= &self.mean;
                rows.into()
            }
        }
    }

    /// The first error of reading since the last call.
    pub fn take_error(&self) -> Option<io::Error> {
        match &self.source {
            Source::Memory(_) => None,
            Source::File(file) => file.take_error(),
        }
    }
}

impl Source {
    pub fn dim(&self) -> (usize, usize) {
        match self {
            Self::Memory(data) => data.dim(),
            Self::File(file) => file.dim,
        }
    }

    fn raw(&self, range: Range<usize>) -> CowArray<'_, f64, Ix2> {
        match self {
            Self::Memory(data) => ArrayView2::from(data).slice_move(s![range, ..]).into(),
            Self::File(file) => file.rows(range).into(),
        }
    }

    fn error(&self) -> Option<String> {
        match self {
            Self::Memory(_) => None,
            Self::File(file) => file.take_error().map(|e| format!("data cannot be read: {e}")),
        }
    }
}

/// Ranges of rows of p values that a sequential pass holds at a time.
pub fn passes((n, p): (usize, usize)) -> impl Iterator<Item = Range<usize>> {
    const BYTES: usize = 1 << 20;
    let rows = (BYTES / (8 * p.max(1))).max(1);
    (0..n).step_by(rows).map(move |from| from..(from + rows).min(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn written(bytes: &[u8]) -> std::path::PathBuf {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("sae-rows-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    }

    #[test]
    fn rows_of_a_file_are_those_of_memory_to_the_last_bit() {
        let (n, p) = (5000, 3);
        let values: Vec<f32> = (0..n * p).map(|i| (i as f32 * 0.37).sin() + 5.0).collect();
        let dense = Array2::from_shape_fn((n, p), |(i, c)| f64::from(values[i * p + c]));
        let memory = CentredRows::new(dense.into(), true).unwrap();
        let mut bytes = vec![7u8; 11];
        values.iter().for_each(|v| bytes.extend(v.to_be_bytes()));
        let path = written(&bytes);
        let file = RowFile::open(&path, 11, Element::F32 { big_endian: true }, (n, p)).unwrap();
        let read = CentredRows::new(Source::File(file), true).unwrap();
        assert_eq!(memory.mean(), read.mean());
        for range in [0..1, 17..90, 4095..4097, n - 1..n] {
            assert_eq!(memory.rows(range.clone()), read.rows(range));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn files_that_are_short_or_not_finite_are_refused() {
        let mut bytes = Vec::new();
        [1.0f64, 2.0, f64::NAN, 4.0].iter().for_each(|v| bytes.extend(v.to_le_bytes()));
        let path = written(&bytes);
        let element = Element::F64 { big_endian: false };
        let error = RowFile::open(&path, 0, element, (3, 2)).unwrap_err().to_string();
        assert!(error.contains("32 bytes"), "{error}");
        let file = RowFile::open(&path, 0, element, (2, 2)).unwrap();
        let error = CentredRows::new(Source::File(file), true).unwrap_err().to_string();
        assert!(error.contains("[1, 0]"), "{error}");
        std::fs::remove_file(path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_shrinks_gives_rows_that_are_no_numbers_and_says_why() {
        let bytes: Vec<u8> = (0..6).flat_map(|i| f64::from(i).to_le_bytes()).collect();
        let path = written(&bytes);
        let file = RowFile::open(&path, 0, Element::F64 { big_endian: false }, (3, 2)).unwrap();
        let rows = CentredRows::new(Source::File(file), false).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(16).unwrap();
        assert!(rows.rows(1..3).iter().all(|v| v.is_nan()));
        assert!(rows.take_error().is_some() && rows.take_error().is_none());
        std::fs::remove_file(path).unwrap();
    }
}
