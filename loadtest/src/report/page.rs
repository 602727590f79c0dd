//! A report as one HTML page that needs nothing else: no network, no fonts, no file beside it.
//!
//! Everything that is told of a run is text on it; plots are drawn here, and a small script only reads values out of them.

mod labels;
mod plot;
mod scale;
mod stack;

use std::time::{Duration, UNIX_EPOCH};

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Value, json};

use super::{
    Along, Cell, Goal, Ledger, Limit, Machine, Measure, Plot, Report, Table,
    text::{grouped, readable, setting},
};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/read_out.js");

/// Nothing may be fetched, whatever a report says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

impl Report {
    /// As one HTML page that needs nothing else.
    #[must_use]
    pub fn to_html(&self) -> String {
        let verdict = Verdict::of(self);
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    link rel="icon" href="data:,";
                    title { (self.scenario) ": " (verdict.word) " – load test" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main {
                        (head(self, &verdict))
                        (goals(&self.goals))
                        (figures(&self.measured))
                        (plots(self))
                        (tables(&self.tables))
                        (conditions(self))
                    }
                    script type="application/json" id="plots" { (PreEscaped(data(self))) }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        };
        page.into_string()
    }
}

/// The verdict, in a word and in a sentence.
struct Verdict {
    class: &'static str,
    word: &'static str,
    sentence: String,
}

impl Verdict {
    fn of(report: &Report) -> Self {
        if report.failed() {
            return Self {
                class: "failed",
                word: "failed",
                sentence: report.reasons().join(", "),
            };
        }
        match report.ledger {
            Some(ledger) => Self {
                class: "exact",
                word: "exact",
                sentence: format!(
                    "{} deliveries, each once, in order, and to whom it was due",
                    grouped(ledger.delivered)
                ),
            },
            None => Self {
                class: "plain",
                word: "measured",
                sentence: "no account of single events was kept".to_owned(),
            },
        }
    }
}

fn head(report: &Report, verdict: &Verdict) -> Markup {
    html! {
        header {
            p.over { "Load test" @if let Some(machine) = &report.machine { " · " (date(machine.time)) } }
            h1 { (report.scenario) }
            p class={ "verdict " (verdict.class) } { strong { (verdict.word) } " " span { (verdict.sentence) } }
            @if let Some(account) = &report.ledger { (ledger(account)) }
        }
    }
}

fn ledger(ledger: &Ledger) -> Markup {
    let wrong = |name| ledger.wrongs().any(|(wrong, _)| wrong == name);
    html! {
        dl.ledger {
            @for (name, count) in ledger.entries() {
                div.wrong[wrong(name)] { dt { (name) } dd { (grouped(count)) } }
            }
        }
    }
}

fn goals(goals: &[Goal]) -> Markup {
    let limit = |goal: &Goal| match goal.limit {
        Limit::AtMost(limit) => format!("≤ {}", readable(limit)),
        Limit::AtLeast(limit) => format!("≥ {}", readable(limit)),
    };
    html! {
        @if !goals.is_empty() {
            section {
                h2 { "Goals" }
                div.scroll { table.goals {
                    thead { tr { th scope="col" { "goal" } th.number scope="col" { "measured" } th.number scope="col" { "meant to be" } th scope="col" { "verdict" } } }
                    tbody {
                        @for goal in goals {
                            tr {
                                th scope="row" { (goal.name) }
                                td.number { (readable(goal.value)) " " small { (goal.unit) } }
                                td.number { (limit(goal)) " " small { (goal.unit) } }
                                td { @if goal.is_reached() { span.reached { "reached" } } @else { span.missed { "not reached" } } }
                            }
                        }
                    }
                } }
            }
        }
    }
}

/// Figures whose names differ behind a comma are one row.
fn figures(measured: &[Measure]) -> Markup {
    let stem = |measure: &Measure| {
        measure
            .name
            .split_once(", ")
            .map_or(measure.name.clone(), |(stem, _)| stem.to_owned())
    };
    html! {
        @if !measured.is_empty() {
            section {
                h2 { "Figures" }
                dl.figures {
                    @for group in measured.chunk_by(|a, b| stem(a) == stem(b) && a.unit == b.unit) {
                        div {
                            dt { (stem(&group[0])) }
                            dd {
                                @for (place, measure) in group.iter().enumerate() {
                                    span.figure {
                                        @if let Some((_, part)) = measure.name.split_once(", ") { span.part { (part) } " " }
                                        b { (readable(measure.value)) }
                                        @if place + 1 == group.len() { " " small { (measure.unit) } }
                                    }
                                    " "
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn plots(report: &Report) -> Markup {
    let over_time = || report.plots.iter().filter(|plot| plot.along == Along::Time);
    let points = over_time().flat_map(|plot| &plot.lines).flat_map(|line| &line.points);
    let together = plot::Together {
        seconds: points
            .map(|&(at, _)| at)
            .chain(report.markers.iter().map(|marker| marker.at))
            .fold(0.0, f64::max),
        markers: &report.markers,
        window: report.window,
        letters: over_time().map(plot::letters).max().unwrap_or_default(),
    };
    html! {
        @if !report.plots.is_empty() {
            section.plots {
                h2 { "Plots" }
                @if report.window.is_some() { p.note { "Figures are of the time that is not shaded." } }
                @for (number, plot) in report.plots.iter().enumerate() {
                    (figure(number, plot, &together))
                }
            }
        }
    }
}

fn figure(number: usize, plot: &Plot, together: &plot::Together<'_>) -> Markup {
    let heading = format!("plot-{number}");
    let letters = if plot.along == Along::Time {
        together.letters
    } else {
        plot::letters(plot)
    };
    let unit = scale::Scale::of_values(plot, 4).unit;
    html! {
        figure {
            figcaption {
                h3 id=(heading) { (plot.title) }
                p.unit { (unit) @if plot.log_scale { ", logarithmic" } @if plot.stacked { ", on top of each other" } }
                @if !plot.note.is_empty() { p.note { (plot.note) } }
            }
            @for form in plot::forms(letters) { (plot::draw(number, plot, form, together, &heading)) }
            details {
                summary { "as numbers" }
                div.scroll { (numbers(plot)) }
            }
        }
    }
}

/// A plot's lines, each in a few figures: all points are in the page's data.
fn numbers(plot: &Plot) -> Markup {
    let (factor, unit) = scale(plot);
    let row = |points: &[(f64, f64)]| {
        let mut values: Vec<_> = points.iter().map(|&(_, value)| value / factor).collect();
        let first = values.first().copied();
        let last = values.last().copied();
        values.sort_by(f64::total_cmp);
        [
            first,
            values.first().copied(),
            values.get(values.len() / 2).copied(),
            values.last().copied(),
            last,
        ]
    };
    html! {
        table {
            thead { tr {
                th scope="col" { (unit) }
                @for name in ["at first", "least", "median", "most", "at last"] { th.number scope="col" { (name) } }
            } }
            tbody {
                @for line in &plot.lines {
                    tr {
                        th scope="row" { (line.name) }
                        @for value in row(&line.points) { td.number { (value.map_or("–".to_owned(), readable)) } }
                    }
                }
            }
        }
    }
}

fn tables(tables: &[Table]) -> Markup {
    html! {
        @for table in tables {
            section {
                h2 { (table.title) }
                @if !table.note.is_empty() { p.note { (table.note) } }
                div.scroll { table {
                    thead { tr { @for (place, column) in table.columns.iter().enumerate() {
                        th.number[is_number(table, place)] scope="col" { (column) }
                    } } }
                    tbody { @for row in &table.rows { tr { @for (place, cell) in row.iter().enumerate() {
                        @if place == 0 { th scope="row" { (text(cell)) } } @else { td.number[is_number(table, place)] { (text(cell)) } }
                    } } } }
                } }
            }
        }
    }
}

fn is_number(table: &Table, place: usize) -> bool {
    let cells = || table.rows.iter().filter_map(|row| row.get(place));
    place > 0 && cells().all(|cell| !matches!(cell, Cell::Text(_)))
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Number(value) => readable(*value),
        Cell::Text(text) => text.clone(),
        Cell::Nothing => "–".to_owned(),
    }
}

fn conditions(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Conditions" }
            @if let Some(Machine { command, .. }) = &report.machine { pre { code { (command) } } }
            dl.conditions {
                @for (name, value) in &report.settings {
                    div { dt { (name) } dd { (setting(value)) } }
                }
                @if let Some(machine) = &report.machine {
                    @for (name, value) in machine_facts(machine) {
                        div { dt { (name) } dd { (value) } }
                    }
                }
            }
        }
    }
}

fn machine_facts(machine: &Machine) -> Vec<(&str, String)> {
    let (size, unit) = scale::binary(machine.memory as f64);
    let processor = match machine.processor.as_str() {
        "" => format!("{} cores", machine.cores),
        model => format!("{} cores of {model}", machine.cores),
    };
    let facts = [
        ("processor", processor),
        ("memory", format!("{:.1} {unit}", machine.memory as f64 / size)),
        ("kernel", machine.kernel.clone()),
    ];
    let versions = machine
        .versions
        .iter()
        .map(|(program, version)| (program.as_str(), version.clone()));
    facts.into_iter().chain(versions).collect()
}

/// What the script reads values out of. A `<` would be able to end the element that it is in.
fn data(report: &Report) -> String {
    let plots = report.plots.iter().map(|plot| {
        let (factor, unit) = scale(plot);
        let along = match &plot.along {
            Along::Time => "time",
            Along::Percentile => "percentile",
            Along::Quantity(name) => name,
        };
        let lines = plot.lines.iter().map(|line| json!({"name": line.name, "points": line.points}));
        json!({"unit": unit, "factor": factor, "along": along, "stacked": plot.stacked, "lines": lines.collect::<Vec<_>>()})
    });
    Value::from_iter(plots).to_string().replace('<', "\\u003c")
}

/// What values of a plot are divided by, and the unit that they have then.
fn scale(plot: &Plot) -> (f64, &str) {
    if plot.unit != "bytes" {
        return (1.0, &plot.unit);
    }
    let values = plot.lines.iter().flat_map(|line| &line.points);
    scale::binary(values.map(|&(_, value)| value).fold(0.0, f64::max))
}

/// A value with its unit, in words.
fn with_unit(value: f64, unit: &str) -> String {
    let (factor, unit) = if unit == "bytes" {
        scale::binary(value)
    } else {
        (1.0, unit)
    };
    format!("{} {unit}", readable(value / factor))
}

fn date(seconds: u64) -> String {
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

#[cfg(test)]
mod tests {
    use super::{super::Ledger, *};

    /// A report with everything in it, named as nobody should.
    fn report(name: &'static str) -> Report {
        let mut report = Report::new(name).setting(name, name);
        report.here().command = name.to_owned();
        report.here().versions.push((name.to_owned(), name.to_owned()));
        report.measured(format!("{name}, {name}"), 1.0, name);
        report.goal(name, 1.0, Limit::AtMost(2.0), name);
        report.ledger(Ledger::default());
        report.fail(name);
        report.marker(0.5, name);
        report.window(0.25, 0.75);
        let points = || (0..100_i32).map(|place| (f64::from(place) / 100.0, f64::from(place) + 0.5));
        report.plot(
            Plot::new(name, name)
                .note(name)
                .line(name, points())
                .line("b", points()),
        );
        report.plot(
            Plot::new(name, "bytes")
                .stacked()
                .line(name, points())
                .line("b", points()),
        );
        report.plot(
            Plot::new(name, "ms")
                .along(Along::Percentile)
                .log_scale()
                .line(name, points()),
        );
        report.plot(
            Plot::new(name, "ms")
                .along(Along::Quantity(name.to_owned()))
                .line(name, points()),
        );
        let mut table = Table::new(name, [name, name]).note(name);
        table.row([name.into(), name.into()]);
        report.table(table);
        report
    }

    #[test]
    fn whatever_names_say_they_are_text() {
        let name = "</script><script>alert('\u{22}\u{22}')</script>&amp;<!--";
        let page = report(name).to_html();
        let plain = report("a name").to_html();
        for tag in ["<script", "</script", "<!--", "<svg", "<td"] {
            assert_eq!(page.matches(tag).count(), plain.matches(tag).count(), "{tag}");
        }
        assert!(
            !page.contains("alert('\u{22}"),
            "a quotation mark would end an attribute"
        );
        assert!(page.contains("&lt;/script&gt;"));
    }

    #[test]
    fn a_page_needs_nothing_else() {
        let page = report("a name").to_html();
        assert_eq!(page.matches("<svg").count(), 8);
        for reference in [
            "http:",
            "https:",
            "src=",
            "url(",
            "@import",
            "//cdn",
            "xlink",
            "fetch(",
            "XMLHttpRequest",
        ] {
            assert!(!page.contains(reference), "{reference}");
        }
        // The only thing that it links to is an icon that is none.
        assert_eq!(page.matches("href=").count(), 1);
        assert!(page.contains("href=\"data:,\"") && page.contains("default-src 'none'"));
    }

    #[test]
    fn each_plot_is_named_and_described() {
        let page = report("a name").to_html();
        for number in 0..4 {
            assert_eq!(page.matches(&format!("aria-labelledby=\"plot-{number}\"")).count(), 2);
            assert_eq!(page.matches(&format!("id=\"plot-{number}\"")).count(), 1);
        }
        assert_eq!(page.matches("<desc>").count(), 8);
        assert!(page.contains("a name from 0.50 bytes to 99.5 bytes"), "{page}");
    }

    #[test]
    fn a_drawing_has_numbers_alone() {
        let mut report = Report::new("odd");
        report.plot(Plot::new("nothing but 0", "ms").log_scale().line("a", [(0.0, 0.0)]));
        report.plot(
            Plot::new("a point", "ms")
                .log_scale()
                .line("a", [(0.0, 1.0)])
                .line("b", []),
        );
        report.plot(
            Plot::new("not of one length", "bytes")
                .stacked()
                .line("a", [(0.0, 1.0)])
                .line("b", [(0.0, 1.0), (1.0, 5.0)]),
        );
        report.plot(
            Plot::new("everything", "ms")
                .along(Along::Percentile)
                .line("a", [(0.0, 1.0), (100.0, 2.0)]),
        );
        let page = report.to_html();
        let drawings: Vec<_> = page
            .split("<svg")
            .skip(1)
            .filter_map(|rest| rest.split("</svg>").next())
            .collect();
        assert_eq!(drawings.len(), 8);
        for drawing in drawings {
            assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
        }
    }
}
