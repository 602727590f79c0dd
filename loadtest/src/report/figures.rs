//! What a report is made of, beside its ledger: figures, goals, plots and tables.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

/// One figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measure {
    /// What it is: unique within a report.
    pub name: String,
    /// How much.
    #[serde(deserialize_with = "number")]
    pub value: f64,
    /// Of what.
    pub unit: Cow<'static, str>,
}

/// JSON has no way to say what is not a number, and writes `null`.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// A figure, and what it is meant to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Goal {
    /// What it is.
    pub name: String,
    /// How much it was.
    #[serde(deserialize_with = "number")]
    pub value: f64,
    /// What it is meant to be.
    pub limit: Limit,
    /// Of both.
    pub unit: Cow<'static, str>,
}

impl Goal {
    /// Whether it is what it is meant to be. What is not a number never is.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.value <= limit,
            Limit::AtLeast(limit) => self.value >= limit,
        }
    }
}

/// What a figure is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

/// Something that happened at a point of time: a line across every plot over time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Marker {
    /// Seconds since the beginning.
    pub at: f64,
    /// What happened, in two or three words.
    pub what: String,
}

/// Lines over time, or over something else, in one frame.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// Of the values: `ms`, `bytes`, `per second`. Bytes are shown in what fits: KiB, MiB, GiB.
    pub unit: String,
    /// How to read it, in a sentence or two; may be empty.
    pub note: String,
    /// What the lines run along.
    pub along: Along,
    /// At least one.
    pub lines: Vec<Line>,
    /// Each tenfold takes the same height. What is 0 or less is not shown.
    pub log_scale: bool,
    /// Each line stands on the one before, and the areas between are filled: parts of a whole.
    pub stacked: bool,
}

/// What lines run along.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Along {
    /// Seconds since the beginning of the run, with its markers.
    #[default]
    Time,
    /// Percentiles, from 0 to less than 100: each further nine takes the same width.
    Percentile,
    /// Any other quantity, with its name: streams, events in flight.
    Quantity(String),
}

/// One line of a plot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Line {
    /// What it is of.
    pub name: String,
    /// Where along, and what value: in the order of the former.
    pub points: Vec<(f64, f64)>,
}

impl Plot {
    /// An empty one, over time.
    #[must_use]
    pub fn new(title: impl Into<String>, unit: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            unit: unit.into(),
            ..Self::default()
        }
    }

    /// With a sentence on how to read it.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Along something other than time.
    #[must_use]
    pub fn along(mut self, along: Along) -> Self {
        self.along = along;
        self
    }

    /// With a logarithmic scale.
    #[must_use]
    pub const fn log_scale(mut self) -> Self {
        self.log_scale = true;
        self
    }

    /// With each line on the one before.
    #[must_use]
    pub const fn stacked(mut self) -> Self {
        self.stacked = true;
        self
    }

    /// With one line more. Points that are not numbers are left out.
    #[must_use]
    pub fn line(mut self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let is_number = |&(along, value): &(f64, f64)| along.is_finite() && value.is_finite();
        self.lines.push(Line {
            name: name.into(),
            points: points.into_iter().filter(is_number).collect(),
        });
        self
    }
}

/// Rows under columns: memory by part, peers beside each other.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// How to read it; may be empty.
    pub note: String,
    /// The first is what each row is about.
    pub columns: Vec<String>,
    /// A cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

/// What is in a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// A number, with its column saying of what.
    Number(f64),
    /// Anything else.
    Text(String),
    /// Not known.
    Nothing,
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        if number.is_finite() {
            Self::Number(number)
        } else {
            Self::Nothing
        }
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number as f64)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(cell: Option<T>) -> Self {
        cell.map_or(Self::Nothing, Into::into)
    }
}

impl Table {
    /// Without rows.
    #[must_use]
    pub fn new<'a>(title: impl Into<String>, columns: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            title: title.into(),
            columns: columns.into_iter().map(str::to_owned).collect(),
            ..Self::default()
        }
    }

    /// With a sentence on how to read it.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Adds a row: a cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_from_its_side() {
        let goal = |value, limit| Goal {
            name: "p99".to_owned(),
            value,
            limit,
            unit: "ms".into(),
        };
        assert!(goal(5.0, Limit::AtMost(5.0)).is_reached());
        assert!(!goal(5.1, Limit::AtMost(5.0)).is_reached());
        assert!(goal(50.0, Limit::AtLeast(50.0)).is_reached());
        assert!(!goal(49.0, Limit::AtLeast(50.0)).is_reached());
        assert!(!goal(f64::NAN, Limit::AtMost(5.0)).is_reached());
        assert!(!goal(f64::NAN, Limit::AtLeast(5.0)).is_reached());
    }

    #[test]
    fn a_line_has_numbers_alone() {
        let plot = Plot::new("a", "b").line("c", [(0.0, 1.0), (1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 2.0)]);
        assert_eq!(plot.lines[0].points, [(0.0, 1.0), (3.0, 2.0)]);
        assert_eq!(Cell::from(f64::NAN), Cell::Nothing);
    }
}
