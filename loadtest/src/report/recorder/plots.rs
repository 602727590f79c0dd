//! The usual plots.

use hdrhistogram::Histogram;

use super::{
    super::{Along, Plot, Report},
    Counters, Recorder, Sample, Sparse,
    summary::{QUANTILES, milliseconds},
    times,
};

/// Points of a line at most: more are less than a pixel apart.
pub(super) const POINTS: usize = 300;

/// Seconds of a point at least: those who count tell a few times a second, and not all at once.
const LEAST: f64 = 0.5;

/// Some samples, one after another, as one point of each line.
struct Step<'a> {
    before: &'a Sample,
    samples: &'a [Sample],
}

impl<'a> Step<'a> {
    fn last(&self) -> &'a Sample {
        self.samples.last().unwrap_or(self.before)
    }

    fn end(&self) -> f64 {
        self.last().at
    }

    fn middle(&self) -> f64 {
        f64::midpoint(self.before.at, self.end())
    }

    /// How much a count has grown, per second.
    fn rate(&self, count: impl Fn(&Counters) -> u64) -> f64 {
        let more = count(&self.last().counters).saturating_sub(count(&self.before.counters));
        more as f64 / (self.end() - self.before.at)
    }

    fn times(&self, of: impl Fn(&Sample) -> &Sparse) -> Histogram<u64> {
        let mut all = times();
        for sample in self.samples {
            of(sample).add_to(&mut all);
        }
        all
    }
}

pub(super) fn report(recorder: &Recorder, report: &mut Report) {
    let beginning = Sample::default();
    let end = recorder.samples.last().map_or(0.0, |sample| sample.at);
    let least = (end / POINTS as f64).max(LEAST) - 1e-6;
    let mut steps = Vec::new();
    let (mut before, mut rest) = (&beginning, &recorder.samples[..]);
    while !rest.is_empty() {
        let enough = rest.iter().position(|sample| sample.at - before.at >= least);
        let (samples, after) = rest.split_at(enough.map_or(rest.len(), |last| last + 1));
        let step = Step { before, samples };
        (before, rest) = (step.last(), after);
        // The last may be of a moment that is not one.
        if step.end() - step.before.at >= least / 2.0 {
            steps.push(step);
        }
    }
    let summary = recorder.summary();
    report.plot(latency("Publish to receive", &steps, |sample| &sample.latencies));
    report.plot(by_percentile("Publish to receive, by percentile", &summary.latencies));
    report.plot(latency("Publish to acknowledged", &steps, |sample| {
        &sample.acknowledgements
    }));
    let counted = |count: fn(&Counters) -> u64| recorder.samples.iter().any(|sample| count(&sample.counters) > 0);
    let rate = |count: fn(&Counters) -> u64| steps.iter().map(move |step| (step.middle(), step.rate(count)));
    let gauge = |count: fn(&Counters) -> u64| {
        steps
            .iter()
            .map(move |step| (step.end(), count(&step.last().counters) as f64))
    };
    if counted(|counters| counters.delivered) {
        report.plot(Plot::new("Deliveries", "per second").line("delivered", rate(|counters| counters.delivered)));
    }
    if counted(|counters| counters.published) {
        let mut plot = Plot::new("Publishes", "per second").line("published", rate(|counters| counters.published));
        if counted(|counters| counters.acknowledged) {
            plot = plot.line("acknowledged", rate(|counters| counters.acknowledged));
        }
        report.plot(plot);
    }
    if counted(|counters| counters.open) {
        let mut plot = Plot::new("Open streams", "streams").line("open", gauge(|counters| counters.open));
        if counted(|counters| counters.opening) {
            plot = plot.line("being opened", gauge(|counters| counters.opening));
        }
        report.plot(plot);
    }
    if counted(|counters| counters.connected) {
        let mut plot = Plot::new("Connects", "per second").line("all", rate(|counters| counters.connected));
        if counted(|counters| counters.reconnects) {
            plot = plot.line("of these, again", rate(|counters| counters.reconnects));
        }
        report.plot(plot);
    }
    usages(recorder, &steps, report);
}

fn usages(recorder: &Recorder, steps: &[Step<'_>], report: &mut Report) {
    let mut memory = Plot::new("Memory by part", "bytes")
        .note("Of processes, what is theirs and no file's; of the kernel, what it keeps more than before the run.")
        .stacked();
    let mut processor = Plot::new("Processor time by part", "% of a core").stacked();
    for (place, name) in recorder.watched.names().enumerate() {
        let of = |sample: &Sample| sample.usages.get(place).copied();
        let bytes = steps
            .iter()
            .map(|step| (step.end(), of(step.last()).unwrap_or_default().memory as f64));
        memory = memory.line(name, bytes);
        let shares = steps.iter().map(|step| {
            let share = of(step.before).zip(of(step.last())).map_or(0.0, |(before, after)| {
                let used = after.processor.saturating_sub(before.processor);
                used.as_secs_f64() / (step.end() - step.before.at)
            });
            (step.middle(), share * 100.0)
        });
        let shares: Vec<_> = shares.collect();
        // The kernel has none of its own.
        if shares.iter().any(|&(_, share)| share > 0.0) {
            processor = processor.line(name, shares);
        }
    }
    report.plot(memory);
    report.plot(processor);
}

/// Percentiles over time.
fn latency(title: &str, steps: &[Step<'_>], of: impl Fn(&Sample) -> &Sparse) -> Plot {
    let times: Vec<_> = steps.iter().map(|step| (step.middle(), step.times(&of))).collect();
    QUANTILES
        .iter()
        .fold(Plot::new(title, "ms").log_scale(), |plot, &(name, quantile)| {
            let points = times.iter().map(|(at, times)| (*at, milliseconds(times, quantile)));
            plot.line(name, points)
        })
}

/// All of them, as far as there are enough values to speak of a percentile.
fn by_percentile(title: &str, times: &Histogram<u64>) -> Plot {
    /// Points for each nine.
    const EACH: u32 = 10;
    let nines = (times.len().max(1) as f64).log10();
    let points = (0..=7 * EACH)
        .map(|place| f64::from(place) / f64::from(EACH))
        .take_while(|&place| place <= nines)
        .map(|place| 1.0 - 10_f64.powf(-place))
        .map(|quantile| (quantile * 100.0, milliseconds(times, quantile)));
    Plot::new(title, "ms")
        .note("Over the whole of what was measured. Each further nine has the same width.")
        .along(Along::Percentile)
        .log_scale()
        .line("latency", points)
}
