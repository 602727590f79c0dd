//! What a run is doing, while it runs: bars on a terminal, and elsewhere a line for each phase.

use std::{
    fmt,
    io::{IsTerminal as _, stderr},
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::{Counters, Ledger, text::grouped};

const UNKNOWN: &str = "{spinner} {msg}  {elapsed}";
const TIMED: &str = "{spinner} {msg}  {wide_bar:.cyan/238}  {elapsed}";
const COUNTED: &str = "{spinner} {msg}  {wide_bar:.cyan/238}  {human_pos} of {human_len}, {rate} per second  {elapsed}";
const COUNTS: &str = "  {msg}";

/// Tells what a run is doing, on standard error.
#[derive(Debug)]
pub struct Progress {
    /// None unless somebody looks.
    bars: Option<Bars>,
}

#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    phase: Mutex<Phase>,
    counts: ProgressBar,
}

#[derive(Debug)]
struct Phase {
    bar: ProgressBar,
    /// Of a phase that takes a known time: when it began.
    begin: Option<Instant>,
    last: Option<(Instant, Counters)>,
}

impl Progress {
    /// The one of this process, which has one standard error: with bars if that is a terminal.
    #[must_use]
    pub fn here() -> &'static Self {
        static HERE: LazyLock<Progress> = LazyLock::new(|| Progress {
            bars: stderr().is_terminal().then(|| Bars::new(MultiProgress::new())),
        });
        &HERE
    }

    /// A phase begins that ends when so many of something are done: streams that are opened. 0 if that is not known.
    pub fn phase(&self, what: &str, of: u64) {
        let number = if of > 0 {
            format!(" {}", grouped(of))
        } else {
            String::new()
        };
        self.begin(what, &number, of, None);
    }

    /// A phase begins that takes so long.
    pub fn phase_for(&self, what: &str, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.begin(what, &format!(" for {time:?}"), milliseconds, Some(Instant::now()));
    }

    fn begin(&self, what: &str, how_much: &str, of: u64, begin: Option<Instant>) {
        let Some(Bars { phase, .. }) = &self.bars else {
            eprintln!("{what}{how_much}");
            return;
        };
        let mut phase = phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        phase.begin = begin;
        phase.bar.reset();
        phase.bar.set_style(match (of, begin) {
            (0, _) => style(UNKNOWN),
            (_, Some(_)) => style(TIMED),
            _ => style(COUNTED),
        });
        phase.bar.set_length(of.max(1));
        phase.bar.set_message(what.to_owned());
    }

    /// So many are done.
    pub fn at(&self, done: u64) {
        if let Some(bars) = &self.bars {
            let phase = bars.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            phase.bar.set_position(done);
        }
    }

    /// What has been counted so far, a few times a second.
    pub fn tell(&self, counters: &Counters, ledger: &Ledger) {
        let Some(bars) = &self.bars else {
            return;
        };
        let mut phase = bars.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(begin) = phase.begin {
            phase
                .bar
                .set_position(u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        phase.bar.tick();
        let now = Instant::now();
        let rate = phase.last.map_or(0.0, |(at, last)| {
            let more = counters.delivered.saturating_sub(last.delivered);
            more as f64 / (now - at).as_secs_f64().max(f64::EPSILON)
        });
        phase.last = Some((now, *counters));
        bars.counts.set_message(line(counters, ledger, rate));
    }

    /// Takes the bars away.
    pub fn done(&self) {
        if let Some(bars) = &self.bars {
            // What cannot be drawn any more needs not to be taken away.
            let _ = bars.all.clear();
        }
    }
}

impl Bars {
    fn new(all: MultiProgress) -> Self {
        let bar = all.add(ProgressBar::no_length());
        let counts = all.add(ProgressBar::no_length());
        counts.set_style(style(COUNTS));
        let phase = Mutex::new(Phase {
            bar,
            begin: None,
            last: None,
        });
        Self { all, phase, counts }
    }
}

/// The second line: what counts now, and what is wrong, if anything is.
fn line(counters: &Counters, ledger: &Ledger, rate: f64) -> String {
    let mut parts = vec![format!("{} open", grouped(counters.open))];
    for (count, what) in [
        (counters.opening, "being opened"),
        (counters.reconnects, "came back"),
        (counters.published, "published"),
        (counters.acknowledged, "acknowledged"),
        (counters.delivered, "delivered"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", grouped(count)));
        }
    }
    if rate >= 0.5 {
        parts.push(format!("{} per second", grouped(rate.round() as u64)));
    }
    parts.extend(
        ledger
            .wrongs()
            .map(|(what, count)| format!("{} {}", grouped(count), what.to_uppercase())),
    );
    parts.join(" · ")
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    let style = style.with_key("rate", |state: &ProgressState, to: &mut dyn fmt::Write| {
        // A terminal that takes no more is told no more.
        let _ = to.write_str(&grouped(state.per_sec().round() as u64));
    });
    style.progress_chars("━╸━")
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;

    use super::*;

    #[test]
    fn what_is_wrong_stands_out() {
        let counters = Counters {
            open: 15_000,
            delivered: 1_234_567,
            ..Counters::default()
        };
        let ledger = Ledger {
            lost: 2,
            ..Ledger::default()
        };
        assert_eq!(
            line(&counters, &ledger, 7_000.4),
            "15,000 open · 1,234,567 delivered · 7,000 per second · 2 LOST"
        );
        assert_eq!(line(&Counters::default(), &Ledger::default(), 0.0), "0 open");
    }

    #[test]
    fn phases_follow_each_other() {
        for template in [UNKNOWN, TIMED, COUNTED, COUNTS] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
        let bars = Bars::new(MultiProgress::with_draw_target(ProgressDrawTarget::hidden()));
        let (bar, counts) = (bars.phase.lock().expect("whole").bar.clone(), bars.counts.clone());
        let progress = Progress { bars: Some(bars) };
        progress.phase("connecting", 10);
        progress.at(5);
        assert_eq!(
            (bar.position(), bar.length(), bar.message()),
            (5, Some(10), "connecting".to_owned())
        );
        progress.phase_for("holding", Duration::from_secs(1));
        progress.tell(&Counters::default(), &Ledger::default());
        assert_eq!((bar.length(), bar.message()), (Some(1_000), "holding".to_owned()));
        assert_eq!(counts.message(), "0 open");
    }
}
