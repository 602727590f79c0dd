//! Several reports beside each other: peers, sizes, before and after.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{Along, Cell, Ledger, Plot, Report, Table};

/// Which reports.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Reports as JSON, each as `FILE` or `NAME=FILE`; without a name that of the file. Of a single one, its table or page is made again.
    #[arg(required = true)]
    pub reports: Vec<String>,
}

/// Reads the reports and puts them beside each other.
///
/// # Errors
/// If one cannot be read.
pub fn run(options: &Options) -> Result<Report> {
    let mut reports = Vec::with_capacity(options.reports.len());
    for argument in &options.reports {
        let (name, file) = match argument.split_once('=') {
            Some((name, file)) => (name.to_owned(), PathBuf::from(file)),
            None => {
                let file = PathBuf::from(argument);
                let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                (stem, file)
            }
        };
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let report: Report = serde_json::from_str(&text).with_context(|| format!("{} is no report", file.display()))?;
        ensure!(
            reports.iter().all(|(known, _)| *known != name),
            "two reports have the name `{name}`: name them, as in `NAME=FILE`"
        );
        reports.push((name, report));
    }
    match reports.len() {
        1 => Ok(reports.remove(0).1),
        _ => Ok(compare(&reports)),
    }
}

/// Puts reports beside each other, each under its name.
#[must_use]
pub fn compare(reports: &[(String, Report)]) -> Report {
    let mut both = Report::new("compare");
    let columns = |first: &'static str| [first].into_iter().chain(reports.iter().map(|(name, _)| name.as_str()));

    let mut figures = Table::new("Figures", columns("figure"));
    let mut known = Vec::new();
    for measure in reports.iter().flat_map(|(_, report)| &report.measured) {
        if known.contains(&&measure.name) {
            continue;
        }
        known.push(&measure.name);
        let name = Cell::from(format!("{}, {}", measure.name, measure.unit));
        let cells = reports.iter().map(|(_, report)| Cell::from(report.get(&measure.name)));
        figures.row([name].into_iter().chain(cells));
    }
    both.table(figures);

    if reports.iter().any(|(_, report)| report.ledger.is_some()) {
        let mut ledgers = Table::new("What became of the events", columns("events"));
        for (place, (name, _)) in Ledger::default().entries().into_iter().enumerate() {
            let cells = reports
                .iter()
                .map(|(_, report)| Cell::from(report.ledger.map(|ledger| ledger.entries()[place].1)));
            ledgers.row([name.into()].into_iter().chain(cells));
        }
        both.table(ledgers);
    }

    let mut settings = Table::new("Settings", columns("setting"));
    let mut known = Vec::new();
    for (name, _) in reports.iter().flat_map(|(_, report)| &report.settings) {
        if known.contains(&name) {
            continue;
        }
        known.push(name);
        let cells = reports.iter().map(|(_, report)| {
            let setting = report.settings.iter().find(|(known, _)| known == name);
            Cell::from(setting.map(|(_, value)| super::text::setting(value)))
        });
        settings.row([Cell::from(name.as_ref())].into_iter().chain(cells));
    }
    both.table(settings);

    for plot in comparable(reports) {
        both.plot(plot);
    }
    // Of each that failed, why.
    for (name, report) in reports {
        for reason in report.reasons() {
            both.fail(format!("{name}: {reason}"));
        }
    }
    both
}

/// Of plots with one line that are not over time, which each run has in its own way: all lines in one.
fn comparable(reports: &[(String, Report)]) -> Vec<Plot> {
    let mut plots: Vec<Plot> = Vec::new();
    for (name, report) in reports {
        for plot in report
            .plots
            .iter()
            .filter(|plot| plot.along != Along::Time && plot.lines.len() == 1)
        {
            let place = plots
                .iter()
                .position(|known| known.title == plot.title && known.unit == plot.unit && known.along == plot.along);
            let place = place.unwrap_or_else(|| {
                plots.push(Plot {
                    lines: Vec::new(),
                    ..plot.clone()
                });
                plots.len() - 1
            });
            let mut lines = plot.lines.clone();
            for line in &mut lines {
                line.name.clone_from(name);
            }
            plots[place].lines.extend(lines);
        }
    }
    plots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(p99: f64, lost: u64) -> Report {
        let mut report = Report::new("fanout").setting("streams", 1_000);
        report.measured("p99", p99, "ms");
        report.ledger(Ledger {
            lost,
            ..Ledger::default()
        });
        report.plot(
            Plot::new("By percentile", "ms")
                .along(Along::Percentile)
                .line("latency", [(50.0, p99)]),
        );
        report
    }

    #[test]
    fn each_has_a_column_and_a_line() {
        let mut other = report(3.0, 2);
        other.measured("idle", 0.5, "% of a core");
        let both = compare(&[("ours".to_owned(), report(1.5, 0)), ("other".to_owned(), other)]);
        let text = both.to_string();
        let has = |row: &[&str]| text.lines().any(|line| line.split_whitespace().eq(row.iter().copied()));
        assert!(has(&["p99,", "ms", "1.50", "3"]), "{text}");
        assert!(has(&["idle,", "%", "of", "a", "core", "–", "0.50"]), "{text}");
        assert_eq!(both.reasons(), ["other: 2 lost"]);
        let names: Vec<_> = both.plots[0].lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["ours", "other"]);
    }

    #[test]
    fn a_single_report_is_shown_again() {
        let directory = tempfile::tempdir().expect("can be made");
        let file = directory.path().join("run.json");
        fs::write(&file, serde_json::to_string(&report(1.5, 0)).expect("serialises")).expect("written");
        let named = format!("a={}", file.display());
        let again = run(&Options {
            reports: vec![named.clone()],
        })
        .expect("readable");
        assert_eq!(again.to_string(), report(1.5, 0).to_string());
        assert!(
            run(&Options {
                reports: vec![named.clone(), named]
            })
            .is_err()
        );
    }
}
