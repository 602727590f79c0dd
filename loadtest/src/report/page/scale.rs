//! Scales and their ticks: from values to places, with round numbers where the grid is.

use super::super::{Along, Plot};

/// From values to places between 0 and 1.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    kind: Kind,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) ticks: Vec<Tick>,
    /// What the labels are of.
    pub(super) unit: String,
}

/// The highest percentile that has a place.
const LAST_NINE: f64 = 99.999_999;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linear,
    Logarithmic,
    /// Each further nine has the same width.
    Nines,
}

/// A line of the grid.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    /// Between 0 and 1.
    pub(super) place: f64,
    pub(super) label: String,
}

impl Scale {
    /// Where a value is, between 0 and 1 if it is within the scale.
    pub(super) fn place(&self, value: f64) -> f64 {
        let measure = |value| self.kind.measure(value);
        let (low, high) = (measure(self.low), measure(self.high));
        (measure(value) - low) / (high - low)
    }

    /// The name of its kind, as the page's script knows it.
    pub(super) const fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Linear => "linear",
            Kind::Logarithmic => "logarithmic",
            Kind::Nines => "nines",
        }
    }

    /// Of the values of a plot, with about so many ticks.
    pub(super) fn of_values(plot: &Plot, about: usize) -> Self {
        if plot.log_scale {
            let values = || plot.lines.iter().flat_map(|line| &line.points).map(|&(_, value)| value);
            let least = values().filter(|&value| value > 0.0).reduce(f64::min);
            let most = values().filter(|&value| value > 0.0).reduce(f64::max);
            if let Some((least, most)) = least.zip(most) {
                return Self::logarithmic(least, most, &plot.unit, about);
            }
        }
        let most = if plot.stacked {
            super::stack::sums(plot).into_iter().fold(0.0, f64::max)
        } else {
            let values = plot.lines.iter().flat_map(|line| &line.points);
            values.map(|&(_, value)| value).fold(0.0, f64::max)
        };
        let (factor, unit) = match plot.unit.as_str() {
            "bytes" => binary(most),
            other => (1.0, other),
        };
        Self::from_nothing(most, factor, unit, about)
    }

    /// Of what lines run along, up to so much at least: seconds are the same for all plots.
    pub(super) fn along(plot: &Plot, seconds: f64, about: usize) -> Self {
        let along = || plot.lines.iter().flat_map(|line| &line.points).map(|&(along, _)| along);
        let most = along().fold(0.0, f64::max);
        match &plot.along {
            Along::Time => Self::time(seconds.max(most), about),
            Along::Percentile => Self::nines(most),
            Along::Quantity(name) => {
                let least = along().fold(f64::INFINITY, f64::min);
                if least > 0.0 && most / least >= 50.0 {
                    Self::logarithmic(least, most, name, about)
                } else {
                    Self::from_nothing(most, 1.0, name, about)
                }
            }
        }
    }

    /// From 0 to the tick that is above all values. A tick's label is what its value is divided by the factor.
    fn from_nothing(most: f64, factor: f64, unit: &str, about: usize) -> Self {
        let most = if most > 0.0 { most / factor } else { 1.0 };
        let step = round_step(most / about as f64);
        let steps = (most / step - 1e-9).ceil().max(1.0);
        let high = steps * step;
        let ticks = (0..=steps as u32).map(|tick| Tick {
            place: f64::from(tick) / steps,
            label: label(f64::from(tick) * step, step),
        });
        Self {
            kind: Kind::Linear,
            low: 0.0,
            high: high * factor,
            ticks: ticks.collect(),
            unit: unit.to_owned(),
        }
    }

    /// Ticks at 1, 2 and 5 of each tenfold, or at each tenfold alone if those are too many.
    fn logarithmic(least: f64, most: f64, unit: &str, about: usize) -> Self {
        let round = |value: f64, up: bool| {
            let tenfold = 10_f64.powf(value.log10().floor());
            let of_tenfold = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * tenfold);
            if up {
                let above = of_tenfold.into_iter().find(|&round| round >= value * (1.0 - 1e-9));
                above.unwrap_or(tenfold * 10.0)
            } else {
                let below = of_tenfold
                    .into_iter()
                    .rev()
                    .find(|&round| round <= value * (1.0 + 1e-9));
                below.unwrap_or(tenfold)
            }
        };
        let low = round(least, false);
        let high = match round(most, true) {
            high if high > low => high,
            _ => low * 10.0,
        };
        let mut scale = Self {
            kind: Kind::Logarithmic,
            low,
            high,
            ticks: Vec::new(),
            unit: unit.to_owned(),
        };
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let digits: &[f64] = match 3 * usize::try_from(last - first).unwrap_or_default() {
            many if many > 2 * about => &[1.0],
            _ => &[1.0, 2.0, 5.0],
        };
        let every = usize::try_from(last - first).unwrap_or_default() / (2 * about).max(1) + 1;
        for power in (first..=last).step_by(every) {
            for digit in digits {
                let value = digit * 10_f64.powi(power);
                let place = scale.place(value);
                if (-1e-9..=1.0 + 1e-9).contains(&place) {
                    let label = label(value, value);
                    scale.ticks.push(Tick { place, label });
                }
            }
        }
        scale
    }

    fn time(seconds: f64, about: usize) -> Self {
        const STEPS: [f64; 16] = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0,
        ];
        let seconds = if seconds > 0.0 { seconds } else { 1.0 };
        let wide_enough = |&step: &f64| seconds / step <= about as f64;
        let step = STEPS
            .into_iter()
            .find(wide_enough)
            .unwrap_or_else(|| round_step(seconds / about as f64));
        let ticks = (0..)
            .map(|tick| f64::from(tick) * step)
            .take_while(|&at| at <= seconds * (1.0 + 1e-9));
        Self {
            kind: Kind::Linear,
            low: 0.0,
            high: seconds,
            ticks: ticks
                .map(|at| Tick {
                    place: at / seconds,
                    label: if seconds < 120.0 {
                        format!("{} s", label(at, step))
                    } else {
                        clock(at)
                    },
                })
                .collect(),
            unit: if seconds < 120.0 { "s" } else { "min" }.to_owned(),
        }
    }

    fn nines(most: f64) -> Self {
        const TICKS: [(f64, &str); 8] = [
            (50.0, "50 %"),
            (90.0, "90 %"),
            (99.0, "99 %"),
            (99.9, "99.9 %"),
            (99.99, "99.99 %"),
            (99.999, "99.999 %"),
            (99.9999, "99.9999 %"),
            (99.99999, "99.99999 %"),
        ];
        let mut scale = Self {
            kind: Kind::Nines,
            low: 0.0,
            high: most.clamp(50.0, LAST_NINE),
            ticks: Vec::new(),
            unit: String::new(),
        };
        let ticks = TICKS.iter().map(|&(percentile, label)| Tick {
            place: scale.place(percentile),
            label: label.to_owned(),
        });
        let ticks = ticks.filter(|tick| tick.place <= 1.0 + 1e-9).collect();
        scale.ticks = ticks;
        scale
    }
}

impl Kind {
    fn measure(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.log10(),
            // Where there are 100 %, there is no end.
            Self::Nines => -(1.0 - value.min(LAST_NINE) / 100.0).log10(),
        }
    }
}

/// 1, 2 or 5 times a tenfold, at least so much.
fn round_step(least: f64) -> f64 {
    let tenfold = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|digit| digit * tenfold);
    let step = steps.into_iter().find(|&step| step >= least * (1.0 - 1e-9));
    step.unwrap_or(10.0 * tenfold)
}

/// What bytes are told in.
pub(super) fn binary(bytes: f64) -> (f64, &'static str) {
    const UNITS: [(f64, &str); 3] = [(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1_024.0, "KiB")];
    let fits = UNITS.into_iter().find(|&(size, _)| bytes >= size);
    fits.unwrap_or((1.0, "bytes"))
}

/// A round number that is a multiple of a step, short: 0.05, 20, 1,000, 15k, 2.5M.
fn label(value: f64, step: f64) -> String {
    let (value, step, suffix) = match value.abs() {
        many if many >= 1e6 => (value / 1e6, step / 1e6, "M"),
        many if many >= 1e4 => (value / 1e3, step / 1e3, "k"),
        _ => (value, step, ""),
    };
    // So many that the step can be told.
    let decimals = (0..12_u32).find(|&decimals| {
        let scaled = step * 10_f64.powi(decimals as i32);
        (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1e-12) && scaled.round() >= 1.0
    });
    let mut text = format!("{value:.*}", decimals.unwrap_or(12) as usize);
    if text.contains('.') {
        text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    if suffix.is_empty() && value >= 1_000.0 && decimals == Some(0) {
        text = super::super::text::grouped(value.round() as u64);
    }
    format!("{text}{suffix}")
}

/// Minutes and seconds, or hours, minutes and seconds.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (minutes, second) = (seconds / 60, seconds % 60);
    match (minutes / 60, minutes % 60) {
        (0, minute) => format!("{minute}:{second:02}"),
        (hour, minute) => format!("{hour}:{minute:02}:{second:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_reach_beyond_the_values() {
        let of = |most: f64| Plot::new("a", "streams").line("b", [(0.0, most)]);
        assert_eq!(
            labels(&Scale::of_values(&of(15_000.0), 4)),
            ["0", "5,000", "10k", "15k"]
        );
        assert_eq!(
            labels(&Scale::of_values(&of(1_234_567.0), 4)),
            ["0", "500k", "1M", "1.5M"]
        );
        assert_eq!(
            labels(&Scale::of_values(&of(0.07), 4)),
            ["0", "0.02", "0.04", "0.06", "0.08"]
        );
        assert_eq!(labels(&Scale::of_values(&of(0.0), 4)), ["0", "0.5", "1"]);
        let scale = Scale::of_values(&of(7.0), 4);
        assert!((scale.place(0.0), scale.place(8.0)) == (0.0, 1.0), "{scale:?}");
    }

    #[test]
    fn bytes_are_told_in_what_fits() {
        let plot = Plot::new("a", "bytes").line("b", [(0.0, 3.5 * 1_073_741_824.0)]);
        let scale = Scale::of_values(&plot, 4);
        assert_eq!(
            (labels(&scale), scale.unit.as_str()),
            (vec!["0", "1", "2", "3", "4"], "GiB")
        );
    }

    #[test]
    fn logarithmic_ticks_are_tenfolds_or_parts_of_them() {
        let of = |least: f64, most: f64| {
            let plot = Plot::new("a", "ms").log_scale();
            Scale::of_values(&plot.line("b", [(0.0, least), (1.0, most), (2.0, 0.0)]), 5)
        };
        assert_eq!(labels(&of(0.3, 12.0)), ["0.2", "0.5", "1", "2", "5", "10", "20"]);
        assert_eq!(labels(&of(0.05, 2_000.0)), ["0.1", "1", "10", "100", "1,000"]);
        assert_eq!(labels(&of(1.0, 1.0)), ["1", "2", "5", "10"]);
        let scale = of(0.3, 12.0);
        assert!((scale.place(0.2).abs() < 1e-9) && (scale.place(20.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn time_is_told_as_one_would() {
        assert_eq!(labels(&Scale::time(20.2, 8)), ["0 s", "5 s", "10 s", "15 s", "20 s"]);
        assert_eq!(labels(&Scale::time(0.0, 8)).first(), Some(&"0 s"));
        assert_eq!(
            labels(&Scale::time(400.0, 8)),
            ["0:00", "1:00", "2:00", "3:00", "4:00", "5:00", "6:00"]
        );
        assert_eq!(
            labels(&Scale::time(7_300.0, 5)),
            ["0:00", "30:00", "1:00:00", "1:30:00", "2:00:00"]
        );
    }

    #[test]
    fn each_nine_has_the_same_width() {
        let scale = Scale::nines(99.99);
        assert_eq!(labels(&scale), ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        let places: Vec<_> = scale.ticks.iter().map(|tick| tick.place).collect();
        assert!(((places[2] - places[1]) - (places[4] - places[3])).abs() < 1e-9);
    }
}
