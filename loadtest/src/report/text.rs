//! A report for a terminal.

use std::fmt;

use serde_json::Value;

use super::{Cell, Goal, Limit, Measure, Report, Table};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scenario)?;
        for (name, value) in &self.settings {
            write!(f, " {name}={value}")?;
        }
        writeln!(f)?;
        let names = self.measured.iter().map(|measure| &measure.name);
        let width = widest(names.chain(self.goals.iter().map(|goal| &goal.name)));
        for Measure { name, value, unit } in &self.measured {
            writeln!(f, "  {name:width$}  {:>12} {unit}", readable(*value))?;
        }
        if !self.goals.is_empty() {
            writeln!(f, "\n  goals")?;
        }
        for goal in &self.goals {
            let Goal { name, value, unit, .. } = goal;
            let (is, limit) = match goal.limit {
                Limit::AtMost(limit) => ("at most", limit),
                Limit::AtLeast(limit) => ("at least", limit),
            };
            let verdict = if goal.is_reached() { "reached" } else { "not reached" };
            let (value, limit) = (readable(*value), readable(limit));
            writeln!(f, "  {name:width$}  {value:>12} {unit}, {is} {limit}: {verdict}")?;
        }
        for table in &self.tables {
            write!(f, "\n{table}")?;
        }
        if let Some(ledger) = self.ledger {
            write!(f, "\n ")?;
            for (name, count) in ledger.entries() {
                write!(f, " {name} {}", grouped(count))?;
            }
            writeln!(f)?;
        }
        if self.failed() {
            writeln!(f, "  FAILED: {}", self.reasons().join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}", self.title.to_lowercase())?;
        let rows: Vec<Vec<_>> = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let widths = self.columns.iter().enumerate().map(|(place, column)| {
            let cells = rows.iter().filter_map(|row| row.get(place));
            widest(cells.chain([column]))
        });
        let widths: Vec<_> = widths.collect();
        for row in [&self.columns].into_iter().chain(&rows) {
            for (place, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if place == 0 {
                    write!(f, "  {cell:width$}")?;
                } else {
                    write!(f, "  {cell:>width$}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn widest<'a>(texts: impl Iterator<Item = &'a String>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or_default()
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Number(value) => readable(*value),
        Cell::Text(text) => text.clone(),
        Cell::Nothing => "–".to_owned(),
    }
}

/// To three digits, or whole, with a comma between thousands: more is less than the noise.
pub(super) fn readable(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        many if many >= 99.95 => {
            let sign = if value < 0.0 { "−" } else { "" };
            format!("{sign}{}", grouped(many.round() as u64))
        }
        _ if value.fract() == 0.0 => format!("{value}"),
        some if some >= 9.995 => format!("{value:.1}"),
        few if few >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A setting as one would type it.
pub(super) fn setting(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "–".to_owned(),
        Value::Array(values) => values.iter().map(setting).collect::<Vec<_>>().join(", "),
        Value::Object(_) => value.to_string(),
    }
}

/// With a comma between thousands.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::{super::Ledger, *};

    #[test]
    fn a_table_has_columns_below_each_other() {
        let mut table = Table::new("Memory by part", ["part", "MiB", "per stream"]);
        table.row(["edges".into(), 1_464.0.into(), 1_536.0.into()]);
        table.row(["a kernel".into(), 12.25.into(), Cell::Nothing]);
        assert_eq!(
            table.to_string(),
            "  memory by part\n  part        MiB  per stream\n  edges     1,464       1,536\n  a kernel   12.2           –\n"
        );
    }

    #[test]
    fn goals_the_ledger_and_a_failure_are_told() {
        let mut report = Report::new("fanout");
        report.measured("delivered", 1_500_000.0, "per second");
        report.goal("p99", 4.2, Limit::AtMost(5.0), "ms");
        report.goal("deliveries", 79.0, Limit::AtLeast(80.0), "% of rawlimit");
        report.ledger(Ledger {
            published: 100,
            acknowledged: 100,
            delivered: 1_499_999,
            lost: 1,
            ..Ledger::default()
        });
        assert_eq!(
            report.to_string(),
            "fanout:
  delivered      1,500,000 per second

  goals
  p99                 4.20 ms, at most 5: reached
  deliveries            79 % of rawlimit, at least 80: not reached

  published 100 acknowledged 100 delivered 1,499,999 lost 1 duplicated 0 reordered 0 misdelivered 0 gaps 0
  FAILED: 1 lost
"
        );
    }

    #[test]
    fn figures_have_as_many_digits_as_they_are_worth() {
        for (value, text) in [
            (0.012_34, "0.012"),
            (1.0, "1"),
            (1.234, "1.23"),
            (9.999, "10.0"),
            (12.34, "12.3"),
            (99.96, "100"),
            (12_345.6, "12,346"),
            (-1_234.0, "−1,234"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(readable(value), text);
        }
    }

    #[test]
    fn thousands_are_apart() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), text);
        }
    }
}
