//! Samples of a run, and the figures and plots that come of them.

mod plots;
mod summary;

use std::time::Instant;

use hdrhistogram::Histogram;

use super::{Marker, Report};
use crate::{
    swarm::say::note,
    watched::{Usage, Watched},
};

pub use self::summary::{PartSummary, Summary};

/// What has been counted since the beginning of a run, and, of `open` and `opening`, how many there are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Streams that are open.
    pub open: u64,
    /// Streams that are being opened.
    pub opening: u64,
    /// Streams that were opened, again or for the first time.
    pub connected: u64,
    /// Of these, again.
    pub reconnects: u64,
    /// Events that streams received.
    pub delivered: u64,
    /// Bytes that streams received.
    pub bytes: u64,
    /// Events that were sent to the server.
    pub published: u64,
    /// Of these, acknowledged.
    pub acknowledged: u64,
}

/// Takes samples over a run. Times are in nanoseconds throughout, and in seconds or milliseconds in what it reports.
#[derive(Debug)]
pub struct Recorder {
    begin: Instant,
    watched: Watched,
    samples: Vec<Sample>,
    markers: Vec<Marker>,
    acknowledgements: Sparse,
    /// The number of the sample at which measuring began,
    first: Option<usize>,
    /// and of that at which it ended.
    last: Option<usize>,
}

/// How things were at a moment, and latencies since the one before.
#[derive(Debug, Clone, Default)]
struct Sample {
    /// Seconds since the beginning.
    at: f64,
    counters: Counters,
    latencies: Sparse,
    acknowledgements: Sparse,
    usages: Vec<Usage>,
}

/// The values of a histogram that are in it, each with how often: most of it would be empty.
#[derive(Debug, Clone, Default)]
struct Sparse(Vec<(u64, u64)>);

impl Sparse {
    fn of(histogram: &Histogram<u64>) -> Self {
        let recorded = histogram.iter_recorded();
        Self(
            recorded
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        )
    }

    fn add_to(&self, histogram: &mut Histogram<u64>) {
        for &(value, count) in &self.0 {
            note(histogram, value, count);
        }
    }
}

/// An empty record of times, in nanoseconds, to three digits.
fn times() -> Histogram<u64> {
    Histogram::new(3).expect("3 digits are within what histograms have")
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Of a run that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            begin: Instant::now(),
            watched: Watched::default(),
            samples: Vec::new(),
            markers: Vec::new(),
            acknowledgements: Sparse::default(),
            first: None,
            last: None,
        }
    }

    /// Seconds since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// Watches memory and processor time of processes, under the name of the part that they play: `server`, `edges`, `clients`. More may be
    /// added to a part at any time; one that ends stays in the account with what it used.
    pub fn watch(&mut self, part: &str, pids: impl IntoIterator<Item = u32>) {
        self.watched.add(part, pids);
    }

    /// Watches what the kernel keeps more than now, as the part `kernel`.
    pub fn watch_kernel(&mut self) {
        self.watched.add_kernel();
    }

    /// Takes a sample: what has been counted since the beginning, and the latencies, publish to receive, since the sample before.
    pub fn sample(&mut self, counters: Counters, latencies: &Histogram<u64>) {
        self.sample_at(self.elapsed(), counters, latencies);
    }

    fn sample_at(&mut self, at: f64, counters: Counters, latencies: &Histogram<u64>) {
        self.samples.push(Sample {
            at,
            counters,
            latencies: Sparse::of(latencies),
            acknowledgements: std::mem::take(&mut self.acknowledgements),
            usages: self.watched.read(),
        });
    }

    /// Notes how long acknowledgements took that came since the sample before: they go with the next one.
    pub fn acknowledged(&mut self, latencies: &Histogram<u64>) {
        self.acknowledgements.0.extend(Sparse::of(latencies).0);
    }

    /// Notes that something happened: a line across all plots over time.
    pub fn mark(&mut self, what: impl Into<String>) {
        let (at, what) = (self.elapsed(), what.into());
        self.markers.push(Marker { at, what });
    }

    /// Figures count from the last sample on: the warm-up is over. Without this they count from the beginning; after a second time, from there.
    pub fn measure(&mut self) {
        if self.samples.is_empty() {
            self.sample(Counters::default(), &times());
        }
        (self.first, self.last) = (Some(self.samples.len() - 1), None);
    }

    /// Figures count up to the last sample. Without this they count to the end.
    pub fn measured(&mut self) {
        self.last = self.samples.len().checked_sub(1);
    }

    /// What was measured, for figures of a scenario's own.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(self)
    }

    /// Adds the usual figures, plots, markers and tables.
    pub fn report(&self, report: &mut Report) {
        self.summary().report(report);
        for Marker { at, what } in &self.markers {
            report.marker(*at, what);
        }
        if let (true, [first, .., last]) = (self.first.is_some() || self.last.is_some(), self.window()) {
            report.window(first.at, last.at);
        }
        plots::report(self, report);
    }

    /// The samples within which is measured: the first is how things were when that began.
    fn window(&self) -> &[Sample] {
        let first = self.first.unwrap_or_default();
        let last = self.last.map_or(self.samples.len(), |last| last + 1);
        self.samples.get(first..last).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(milliseconds: &[u64]) -> Histogram<u64> {
        let mut histogram = times();
        for millisecond in milliseconds {
            histogram.record(millisecond * 1_000_000).expect("has a place");
        }
        histogram
    }

    fn counters(open: u64, delivered: u64) -> Counters {
        Counters {
            open,
            delivered,
            ..Counters::default()
        }
    }

    /// A hundred samples a second apart, the first ten of which are not to count.
    fn recorder() -> Recorder {
        let mut recorder = Recorder::new();
        for second in 1..=100_u32 {
            let latencies = latencies(&[1, 2, if second <= 10 { 1_000 } else { 3 }]);
            recorder.sample_at(f64::from(second), counters(7, u64::from(second) * 3), &latencies);
            if second == 10 {
                recorder.measure();
            }
        }
        recorder.measured();
        // Nor is what comes after the end.
        recorder.sample_at(101.0, counters(0, 1_000), &latencies(&[5_000]));
        recorder
    }

    #[test]
    fn a_sparse_histogram_is_the_same() {
        let mut all = times();
        for value in [1, 1, 999, 1_000_003, 7_654_321_000, 1_000_003] {
            all.record(value).expect("has a place");
        }
        let mut again = times();
        Sparse::of(&all).add_to(&mut again);
        assert_eq!(again.len(), all.len());
        for quantile in [0.0, 0.3, 0.5, 0.9, 1.0] {
            assert_eq!(again.value_at_quantile(quantile), all.value_at_quantile(quantile));
        }
        Sparse::of(&all).add_to(&mut again);
        assert_eq!(again.len(), 2 * all.len());
    }

    #[test]
    fn what_is_measured_is_between_the_two() {
        let summary = recorder().summary();
        assert_eq!(summary.counters.delivered, 270);
        assert!((summary.seconds - 90.0).abs() < 1e-9);
        assert_eq!(summary.latencies.len(), 270);
        assert!((summary.latency(1.0) - 3.0).abs() < 0.01, "{}", summary.latency(1.0));
        let mut report = Report::new("test");
        recorder().report(&mut report);
        assert_eq!(report.get("delivered"), Some(3.0));
    }

    #[test]
    fn lines_show_everything() {
        let mut report = Report::new("test");
        recorder().report(&mut report);
        let json = report.to_json();
        let plots = json["plots"].as_array().expect("are there");
        let titles: Vec<_> = plots.iter().filter_map(|plot| plot["title"].as_str()).collect();
        assert_eq!(
            titles,
            [
                "Publish to receive",
                "Publish to receive, by percentile",
                "Deliveries",
                "Open streams"
            ]
        );
        let max = plots[0]["lines"][3]["points"].as_array().expect("is there");
        assert_eq!(max.len(), 101);
        assert!(max[0][1].as_f64().expect("a number") > 999.0);
    }

    #[test]
    fn a_long_run_has_few_enough_points() {
        let mut recorder = Recorder::new();
        let (usual, late) = (latencies(&[1]), latencies(&[1, 900]));
        for quarter in 1..=2_000_u32 {
            let latencies = if quarter == 1_000 { &late } else { &usual };
            recorder.sample_at(f64::from(quarter) / 4.0, counters(1, u64::from(quarter)), latencies);
        }
        let mut report = Report::new("test");
        recorder.report(&mut report);
        let json = report.to_json();
        let max = json["plots"][0]["lines"][3]["points"].as_array().expect("is there");
        assert!((100..=plots::POINTS).contains(&max.len()), "{}", max.len());
        // And nothing that happened is left out.
        assert!(max.iter().any(|point| point[1].as_f64().expect("a number") > 899.0));
        let rate = json["plots"][2]["lines"][0]["points"].as_array().expect("is there");
        assert!(
            rate.iter()
                .all(|point| (point[1].as_f64().expect("a number") - 4.0).abs() < 1e-9)
        );
    }

    #[test]
    fn without_samples_there_is_nothing_to_say() {
        let mut report = Report::new("test");
        Recorder::new().report(&mut report);
        assert_eq!(report.to_string(), "test:\n");
    }
}
