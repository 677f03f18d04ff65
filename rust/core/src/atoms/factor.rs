//! The factors a chart is a product of.

use super::BasisJet;
use std::f64::consts::{LN_2, PI};

/// One factor of a chart: where one or two local coordinates live, and how the points on it are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChartFactor {
    /// An angle; its prior is uniform, or von Mises when ARD is on.
    Circle { period: f64 },
    /// A real number; its prior is a Gaussian, the standard one when ARD is off.
    Line,
    /// A real number between two ends, uniform; at an end it is held while it would rather leave.
    Interval { lo: f64, hi: f64 },
    /// A unit 3-vector with a uniform prior; with `antipodal`, t and -t are one point.
    Sphere { antipodal: bool },
    /// One of a few points, uniform; nothing depends on its local coordinate, which stands for the point it is.
    Choice { size: usize },
}

impl ChartFactor {
    /// Number of local coordinates.
    pub fn dim(self) -> usize {
        match self {
            Self::Circle { .. } | Self::Line | Self::Interval { .. } | Self::Choice { .. } => 1,
            Self::Sphere { .. } => 2,
        }
    }

    /// Number of stored coordinates.
    pub fn ambient(self) -> usize {
        match self {
            Self::Circle { .. } | Self::Line | Self::Interval { .. } | Self::Choice { .. } => 1,
            Self::Sphere { .. } => 3,
        }
    }

    /// Log-volume of a compact factor (or the log of the number of its points), the energy of its uniform prior; `None` for a
    /// line.
    pub fn ln_volume(self) -> Option<f64> {
        match self {
            Self::Circle { period } => Some(period.ln()),
            Self::Line => None,
            Self::Interval { lo, hi } => Some((hi - lo).ln()),
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

    /// Which way leads inside, +1 or -1, from a coordinate that lies at an end; `None` anywhere else.
    pub fn inward(self, t: f64) -> Option<f64> {
        match self {
            Self::Interval { lo, .. } if t <= lo => Some(1.0),
            Self::Interval { hi, .. } if t >= hi => Some(-1.0),
            _ => None,
        }
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

/// A coordinate at an end of its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wall {
    /// Local coordinate of the atom.
    pub axis: usize,
    /// Its place among the stored ones.
    pub stored: usize,
    /// Which way leads inside: +1 or -1.
    pub inward: f64,
}

/// The coordinates of a stored point that lie at an end of their interval.
pub fn walls<'a>(factors: &'a [ChartFactor], t: &'a [f64]) -> impl Iterator<Item = Wall> + 'a {
    places(factors).filter_map(|place| {
        let inward = place.factor.inward(t[place.stored])?;
        Some(Wall { axis: place.local, stored: place.stored, inward })
    })
}

/// A coordinate that is held is no variable: nothing has a derivative along it.
pub fn hold_axis(jet: &mut BasisJet, axis: usize) {
    let width = jet.phi.len();
    let dim = jet.d1.len() / width;
    jet.d1[axis * width..(axis + 1) * width].fill(0.0);
    for other in 0..dim {
        for pair in [axis * dim + other, other * dim + axis] {
            jet.d2[pair * width..(pair + 1) * width].fill(0.0);
        }
    }
}

/// Holds every coordinate of a point that lies at an end of its interval.
pub fn hold(factors: &[ChartFactor], t: &[f64], jet: &mut BasisJet) {
    walls(factors, t).for_each(|wall| hold_axis(jet, wall.axis));
}
