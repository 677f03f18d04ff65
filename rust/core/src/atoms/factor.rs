//! The factors a chart is a product of.

use std::f64::consts::{LN_2, PI};

/// One factor of a chart: where one or two local coordinates live, and how the points on it are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChartFactor {
    /// An angle; its prior is uniform, or von Mises when ARD is on.
    Circle { period: f64 },
    /// A real number; its prior is a Gaussian, the standard one when ARD is off.
    Line,
    /// A unit 3-vector with a uniform prior; with `antipodal`, t and -t are one point.
    Sphere { antipodal: bool },
    /// One of a few points, uniform; nothing depends on its local coordinate, which stands for the point it is.
    Choice { size: usize },
}

impl ChartFactor {
    /// Number of local coordinates.
    pub fn dim(self) -> usize {
        match self {
            Self::Circle { .. } | Self::Line | Self::Choice { .. } => 1,
            Self::Sphere { .. } => 2,
        }
    }

    /// Number of stored coordinates.
    pub fn ambient(self) -> usize {
        match self {
            Self::Circle { .. } | Self::Line | Self::Choice { .. } => 1,
            Self::Sphere { .. } => 3,
        }
    }

    /// Log-volume of a compact factor (or the log of the number of its points), the energy of its uniform prior; `None` for a
    /// line.
    pub fn ln_volume(self) -> Option<f64> {
        match self {
            Self::Circle { period } => Some(period.ln()),
            Self::Line => None,
            Self::Sphere { antipodal } => Some((4.0 * PI).ln() - if antipodal { LN_2 } else { 0.0 }),
            Self::Choice { size } => Some((size as f64).ln()),
        }
    }

    /// The part of its prior's energy that is the same at every point and precision.
    pub fn prior_constant(self) -> f64 {
        self.ln_volume().unwrap_or(0.5 * (2.0 * PI).ln())
    }

    /// Whether its prior can have a precision of its own.
    pub fn has_precision(self) -> bool {
        matches!(self, Self::Circle { .. } | Self::Line)
    }
}

/// A factor with where its coordinates begin.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub factor: ChartFactor,
    /// First local coordinate.
    pub local: usize,
    /// First stored coordinate.
    pub stored: usize,
}

/// The factors of a chart, each with its place.
pub fn places(factors: &[ChartFactor]) -> impl Iterator<Item = Place> + '_ {
    let (mut local, mut stored) = (0, 0);
    factors.iter().map(move |&factor| {
        let place = Place { factor, local, stored };
        local += factor.dim();
        stored += factor.ambient();
        place
    })
}
