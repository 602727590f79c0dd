//! The figures of a whole run.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{
    super::{Cell, Report, Table},
    Counters, Recorder, Sample, times,
};

/// What was measured, from the end of the warm-up on.
#[derive(Debug, Clone)]
pub struct Summary {
    /// How long that took.
    pub seconds: f64,
    /// What was counted during it; `open` and `opening` are of its end.
    pub counters: Counters,
    /// Publish to receive, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// Publish to acknowledged, in nanoseconds.
    pub acknowledgements: Histogram<u64>,
    /// What each part used.
    pub parts: Vec<PartSummary>,
}

/// What a part used while it was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSummary {
    /// Its name.
    pub name: String,
    /// Time on a processor.
    pub processor: Duration,
    /// Memory at the end, in bytes.
    pub memory: u64,
    /// The most memory that a sample found, in bytes.
    pub peak: u64,
    /// Processes at the end.
    pub processes: u64,
}

impl Summary {
    pub(super) fn of(recorder: &Recorder) -> Self {
        let window = recorder.window();
        let nothing = Sample::default();
        // Without an explicit beginning, what the first sample counts belongs to it.
        let first = match recorder.first {
            Some(_) => window.first().unwrap_or(&nothing),
            None => &nothing,
        };
        let last = window.last().unwrap_or(&nothing);
        let mut summary = Self {
            seconds: last.at - first.at,
            counters: last.counters.since(&first.counters),
            latencies: times(),
            acknowledgements: times(),
            parts: Vec::new(),
        };
        for sample in window.iter().skip(usize::from(recorder.first.is_some())) {
            sample.latencies.add_to(&mut summary.latencies);
            sample.acknowledgements.add_to(&mut summary.acknowledgements);
        }
        let before = window.first().unwrap_or(&nothing);
        for (place, name) in recorder.watched.names().enumerate() {
            let of = |sample: &Sample| sample.usages.get(place).copied().unwrap_or_default();
            let end = of(last);
            summary.parts.push(PartSummary {
                name: name.to_owned(),
                processor: end.processor.saturating_sub(of(before).processor),
                memory: end.memory,
                peak: window.iter().map(|sample| of(sample).memory).max().unwrap_or_default(),
                processes: end.processes,
            });
        }
        summary
    }

    /// Publish to receive, in milliseconds: not a number if nothing was received.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> f64 {
        milliseconds(&self.latencies, quantile)
    }

    /// Publish to acknowledged, in milliseconds: not a number if nothing was acknowledged.
    #[must_use]
    pub fn acknowledged(&self, quantile: f64) -> f64 {
        milliseconds(&self.acknowledgements, quantile)
    }

    /// So many a second: not a number if there was no time.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 {
            count as f64 / self.seconds
        } else {
            f64::NAN
        }
    }

    /// The part of this name.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&PartSummary> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// Deliveries per second of processor time that a part used: not a number if it used none.
    #[must_use]
    pub fn deliveries_per_processor_second(&self, part: &str) -> f64 {
        let seconds = self.part(part).map_or(0.0, |part| part.processor.as_secs_f64());
        if seconds > 0.0 {
            self.counters.delivered as f64 / seconds
        } else {
            f64::NAN
        }
    }

    /// Adds the usual figures.
    pub(super) fn report(&self, report: &mut Report) {
        let counters = &self.counters;
        let rates = [
            ("published", counters.published, "per second"),
            ("acknowledged", counters.acknowledged, "per second"),
            ("delivered", counters.delivered, "per second"),
        ];
        for (name, count, unit) in rates {
            if count > 0 {
                report.measured(name, self.per_second(count), unit);
            }
        }
        if counters.reconnects > 0 {
            report.measured("reconnects", counters.reconnects as f64, "streams");
        }
        for (what, times) in [
            ("publish to acknowledged", &self.acknowledgements),
            ("publish to receive", &self.latencies),
        ] {
            if times.is_empty() {
                continue;
            }
            for (name, quantile) in QUANTILES {
                report.measured(format!("{what}, {name}"), milliseconds(times, quantile), "ms");
            }
        }
        let at_work = || self.parts.iter().filter(|part| !part.processor.is_zero());
        for part in at_work() {
            let share = part.processor.as_secs_f64() / self.seconds.max(f64::EPSILON);
            report.measured(format!("processor, {}", part.name), share * 100.0, "% of a core");
        }
        for part in at_work().filter(|_| counters.delivered > 0) {
            let each = part.processor.as_secs_f64() * 1e6 / counters.delivered as f64;
            report.measured(format!("processor per delivery, {}", part.name), each, "µs");
        }
        report.table(self.memory());
    }

    fn memory(&self) -> Table {
        let columns = [
            "part",
            "processes",
            "at the end, MiB",
            "at most, MiB",
            "per open stream, bytes",
        ];
        let mut table = Table::new("Memory by part", columns).note(
            "Of processes, what is theirs and no file's; of the kernel, what it keeps more than before the run. Per stream, what there is from the start is shared out, too.",
        );
        let mib = |bytes: u64| Cell::from(bytes as f64 / f64::from(1 << 20));
        let per_stream = |bytes: u64| match self.counters.open {
            0 => Cell::Nothing,
            open => Cell::from(bytes as f64 / open as f64),
        };
        let row = |name: &str, processes: Cell, end: u64, peak: Option<u64>| {
            [
                name.into(),
                processes,
                mib(end),
                peak.map_or(Cell::Nothing, mib),
                per_stream(end),
            ]
        };
        for part in &self.parts {
            let processes = (part.processes > 0).then_some(part.processes).into();
            table.row(row(&part.name, processes, part.memory, Some(part.peak)));
        }
        if self.parts.len() > 1 {
            let processes: u64 = self.parts.iter().map(|part| part.processes).sum();
            let end = self.parts.iter().map(|part| part.memory).sum();
            table.row(row("together", processes.into(), end, None));
        }
        table
    }
}

/// Which percentiles are told.
pub(super) const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// A percentile of times in nanoseconds, in milliseconds.
pub(super) fn milliseconds(times: &Histogram<u64>, quantile: f64) -> f64 {
    if times.is_empty() {
        return f64::NAN;
    }
    times.value_at_quantile(quantile) as f64 / 1e6
}

impl Counters {
    /// What was counted since then; how many streams are open and being opened stays.
    pub(super) const fn since(&self, before: &Self) -> Self {
        Self {
            open: self.open,
            opening: self.opening,
            connected: self.connected.saturating_sub(before.connected),
            reconnects: self.reconnects.saturating_sub(before.reconnects),
            delivered: self.delivered.saturating_sub(before.delivered),
            bytes: self.bytes.saturating_sub(before.bytes),
            published: self.published.saturating_sub(before.published),
            acknowledged: self.acknowledged.saturating_sub(before.acknowledged),
        }
    }
}
