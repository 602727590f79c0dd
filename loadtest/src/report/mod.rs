//! What a scenario has found: readable as a table, as JSON, or as one page with plots.
//!
//! A scenario makes a [`Report`], notes its settings, has a [`Recorder`] take samples while it runs, and adds what the recorder found
//! together with the [`Ledger`] and whatever else it measured:
//!
//! ```
//! use hdrhistogram::Histogram;
//! use tidings_loadtest::report::{Counters, Ledger, Limit, Recorder, Report};
//!
//! let mut report = Report::new("fanout").setting("streams", 15_000).setting("rate", 200);
//! let mut recorder = Recorder::new();
//! recorder.watch("server", [std::process::id()]); // memory and processor time of its processes, as one part
//! recorder.watch_kernel(); // memory that is the kernel's own: a part like any other
//!
//! // While it runs, about every 250 ms: what has been counted since the beginning, and the latencies since the sample before.
//! let mut latencies = Histogram::new(3)?; // nanoseconds
//! latencies.record(1_200_000)?;
//! recorder.sample(Counters { open: 15_000, delivered: 15_000, ..Counters::default() }, &latencies);
//! recorder.measure(); // the warm-up is over: overall figures count from here on; lines show everything
//! recorder.mark("broadcast"); // a line across all plots over time
//! recorder.sample(Counters { open: 15_000, delivered: 30_000, ..Counters::default() }, &latencies);
//! recorder.measured(); // what comes after this is not measured
//!
//! let summary = recorder.summary(); // for figures and goals of the scenario's own
//! recorder.report(&mut report); // the usual figures, plots and tables
//! report.ledger(Ledger { published: 2, acknowledged: 2, delivered: 30_000, ..Ledger::default() });
//! report.goal("publish to receive, p99", summary.latency(0.99), Limit::AtMost(5.0), "ms");
//! assert!(!report.failed());
//! # anyhow::Ok(())
//! ```
//!
//! | part        | is about                                                            |
//! |-------------|---------------------------------------------------------------------|
//! | [`Ledger`]  | what became of the events: alone decides whether a run has failed   |
//! | [`Goal`]    | a figure and what it is meant to be: told, and no more than that    |
//! | [`Plot`]    | lines over time, or along something else                            |
//! | [`Table`]   | rows under columns                                                  |
//! | [`Machine`] | where it ran, and the command that repeats it                       |
//! | [`compare`] | several reports beside each other                                   |
//! | [`Progress`] | what a run is doing, on a terminal                                  |
//! | [`Output`]  | where a report goes: `--json[=FILE]`, `--html FILE`                 |

pub mod compare;
mod figures;
mod ledger;
mod machine;
mod output;
mod page;
mod progress;
mod recorder;
mod settings;
mod text;

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

pub use self::{
    figures::{Along, Cell, Goal, Limit, Line, Marker, Measure, Plot, Table},
    ledger::Ledger,
    machine::Machine,
    output::Output,
    progress::Progress,
    recorder::{Counters, PartSummary, Recorder, Summary},
};

/// What was measured, and under which settings.
///
/// As JSON: `{"scenario": …, "failed": …, "reasons": […], "ledger": {…}, "goals": […], "settings": {…}, "machine": {…},
/// "measured": [{"name": …, "value": …, "unit": …}, …], "markers": […], "plots": […], "tables": […]}`.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    scenario: Cow<'static, str>,
    #[serde(default)]
    machine: Option<Machine>,
    #[serde(default, with = "settings")]
    settings: Vec<(Cow<'static, str>, Value)>,
    #[serde(default)]
    ledger: Option<Ledger>,
    #[serde(default)]
    failures: Vec<String>,
    #[serde(default)]
    goals: Vec<Goal>,
    #[serde(default)]
    measured: Vec<Measure>,
    #[serde(default)]
    window: Option<(f64, f64)>,
    #[serde(default)]
    markers: Vec<Marker>,
    #[serde(default)]
    plots: Vec<Plot>,
    #[serde(default)]
    tables: Vec<Table>,
}

impl Report {
    /// Of a scenario, with nothing measured yet.
    #[must_use]
    pub const fn new(scenario: &'static str) -> Self {
        Self {
            scenario: Cow::Borrowed(scenario),
            machine: None,
            settings: Vec::new(),
            ledger: None,
            failures: Vec::new(),
            goals: Vec::new(),
            measured: Vec::new(),
            window: None,
            markers: Vec::new(),
            plots: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// Notes a setting that the figures depend on.
    #[must_use]
    pub fn setting(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Notes where this runs, and as which command.
    pub fn here(&mut self) -> &mut Machine {
        self.machine.get_or_insert_with(Machine::here)
    }

    /// Adds a figure.
    pub fn measured(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let (name, unit) = (name.into(), unit.into());
        self.measured.push(Measure { name, value, unit });
    }

    /// The figure of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        let measure = self.measured.iter().find(|measure| measure.name == name)?;
        Some(measure.value)
    }

    /// Adds what became of events.
    pub fn ledger(&mut self, ledger: Ledger) {
        self.ledger.get_or_insert_default().merge(&ledger);
    }

    /// Adds a reason for which the run has failed, other than those that the ledger has: streams that ended by themselves.
    pub fn fail(&mut self, reason: impl Into<String>) {
        self.failures.push(reason.into());
    }

    /// Adds a figure and what it is meant to be.
    pub fn goal(&mut self, name: impl Into<String>, value: f64, limit: Limit, unit: &'static str) {
        let (name, unit) = (name.into(), unit.into());
        self.goals.push(Goal {
            name,
            value,
            limit,
            unit,
        });
    }

    /// The goals, reached or not.
    #[must_use]
    pub fn goals(&self) -> &[Goal] {
        &self.goals
    }

    /// Whether the run has failed, however fast it was. A goal that is not reached is no failure.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.failures.is_empty() || self.ledger.is_some_and(|ledger| !ledger.is_exact())
    }

    /// Why it has failed: empty if it has not.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let ledger = self.ledger.unwrap_or_default();
        let wrongs = ledger.wrongs().map(|(name, count)| format!("{count} {name}"));
        wrongs.chain(self.failures.iter().cloned()).collect()
    }

    /// Adds something that happened, so many seconds after the beginning.
    pub fn marker(&mut self, at: f64, what: impl Into<String>) {
        let what = what.into();
        self.markers.push(Marker { at, what });
    }

    /// Notes within which seconds after the beginning figures count: the warm-up is before it.
    pub const fn window(&mut self, from: f64, to: f64) {
        self.window = Some((from, to));
    }

    /// Adds a plot, unless it has nothing to show.
    pub fn plot(&mut self, plot: Plot) {
        if plot.lines.iter().any(|line| !line.points.is_empty()) {
            self.plots.push(plot);
        }
    }

    /// Adds a table, unless it is empty.
    pub fn table(&mut self, table: Table) {
        if !table.rows.is_empty() {
            self.tables.push(table);
        }
    }

    /// As one JSON value; see [`Report`]. Written as text by serde, rather than through this, settings keep their order.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// As it is told: with the verdict spelled out.
#[derive(Serialize)]
struct Told<'a> {
    scenario: &'a str,
    failed: bool,
    reasons: Vec<String>,
    failures: &'a [String],
    ledger: Option<Ledger>,
    goals: Vec<ToldGoal<'a>>,
    #[serde(with = "settings")]
    settings: &'a [(Cow<'static, str>, Value)],
    machine: Option<&'a Machine>,
    measured: &'a [Measure],
    window: Option<(f64, f64)>,
    markers: &'a [Marker],
    plots: &'a [Plot],
    tables: &'a [Table],
}

#[derive(Serialize)]
struct ToldGoal<'a> {
    #[serde(flatten)]
    goal: &'a Goal,
    reached: bool,
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let goals = self.goals.iter().map(|goal| ToldGoal {
            goal,
            reached: goal.is_reached(),
        });
        let told = Told {
            scenario: &self.scenario,
            failed: self.failed(),
            reasons: self.reasons(),
            failures: &self.failures,
            ledger: self.ledger,
            goals: goals.collect(),
            settings: &self.settings,
            machine: self.machine.as_ref(),
            measured: &self.measured,
            window: self.window,
            markers: &self.markers,
            plots: &self.plots,
            tables: &self.tables,
        };
        told.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("hold").setting("streams", 1_000).setting("first", "10");
        report.measured("memory per stream", 1_536.4, "bytes");
        report.measured("idle", 0.25, "% of a core");
        report
    }

    #[test]
    fn reads_as_a_table_and_as_json() {
        let report = report();
        assert_eq!(
            report.to_string(),
            "hold: streams=1000 first=\"10\"\n  memory per stream         1,536 bytes\n  idle                       0.25 % of a core\n"
        );
        let json = report.to_json();
        assert_eq!(json["settings"]["streams"], 1_000);
        assert_eq!(json["measured"][1]["value"], 0.25);
        assert_eq!(report.get("idle"), Some(0.25));
    }

    #[test]
    fn only_the_ledger_and_what_a_scenario_says_are_failures() {
        let mut report = report();
        assert!(!report.failed());
        report.goal("idle", 0.25, Limit::AtMost(0.1), "% of a core");
        report.ledger(Ledger {
            delivered: 10,
            gaps: 1,
            ..Ledger::default()
        });
        assert!(!report.failed());
        assert!(report.reasons().is_empty());
        report.ledger(Ledger {
            lost: 2,
            reordered: 1,
            ..Ledger::default()
        });
        report.fail("3 streams ended by themselves");
        assert!(report.failed());
        assert_eq!(
            report.reasons(),
            ["2 lost", "1 reordered", "3 streams ended by themselves"]
        );
    }

    #[test]
    fn json_is_read_back_as_it_was() {
        let mut report = report();
        report.here();
        report.ledger(Ledger {
            lost: 1,
            ..Ledger::default()
        });
        report.fail("for another reason");
        report.measured("not known", f64::NAN, "ms");
        report.goal("idle", 0.25, Limit::AtMost(0.1), "% of a core");
        report.marker(1.5, "server killed");
        report.plot(
            Plot::new("Latency", "ms")
                .log_scale()
                .line("p50", [(0.0, 1.0), (1.0, 2.0)]),
        );
        let mut table = Table::new("Memory", ["part", "MiB"]);
        table.row(["server".into(), 1.5.into()]);
        table.row(["kernel".into(), Cell::Nothing]);
        report.table(table);
        let text = serde_json::to_string(&report).expect("serialises");
        let again: Report = serde_json::from_str(&text).expect("is a report");
        assert_eq!(serde_json::to_string(&again).expect("serialises"), text);
        assert_eq!(again.reasons(), report.reasons());
        // In the order in which they were noted.
        assert!(text.find("\"streams\":").expect("is there") < text.find("\"first\":").expect("is there"));
    }

    /// Whoever reads reports with a program of their own relies on these names.
    #[test]
    fn the_names_in_json_stay() {
        let mut report = report();
        report.ledger(Ledger::default());
        report.goal("idle", 0.25, Limit::AtLeast(0.1), "% of a core");
        report.window(1.0, 2.0);
        report.marker(1.5, "server killed");
        report.plot(
            Plot::new("Latency", "ms")
                .along(Along::Quantity("streams".into()))
                .line("p50", [(0.0, 1.0)]),
        );
        let mut table = Table::new("Memory", ["part", "MiB", "note"]);
        table.row(["server".into(), 1.5.into(), Cell::Nothing]);
        report.table(table);
        assert_eq!(
            report.to_json(),
            serde_json::json!({
                "scenario": "hold",
                "failed": false,
                "reasons": [],
                "failures": [],
                "ledger": {
                    "published": 0, "acknowledged": 0, "delivered": 0, "lost": 0, "duplicated": 0, "reordered": 0, "misdelivered": 0, "gaps": 0,
                },
                "goals": [{"name": "idle", "value": 0.25, "limit": {"at_least": 0.1}, "unit": "% of a core", "reached": true}],
                "settings": {"streams": 1_000, "first": "10"},
                "machine": null,
                "measured": [
                    {"name": "memory per stream", "value": 1_536.4, "unit": "bytes"},
                    {"name": "idle", "value": 0.25, "unit": "% of a core"},
                ],
                "window": [1.0, 2.0],
                "markers": [{"at": 1.5, "what": "server killed"}],
                "plots": [{
                    "title": "Latency", "unit": "ms", "note": "", "along": {"quantity": "streams"},
                    "lines": [{"name": "p50", "points": [[0.0, 1.0]]}], "log_scale": false, "stacked": false,
                }],
                "tables": [{"title": "Memory", "note": "", "columns": ["part", "MiB", "note"], "rows": [["server", 1.5, null]]}],
            })
        );
    }
}
