//! What a scenario has found: readable as a table, or as JSON.

use std::fmt;

use serde_json::{Value, json};

/// What was measured, and under which settings.
#[derive(Debug)]
pub struct Report {
    scenario: &'static str,
    settings: Vec<(&'static str, Value)>,
    measured: Vec<Measure>,
}

#[derive(Debug)]
struct Measure {
    name: String,
    value: f64,
    unit: &'static str,
}

impl Report {
    /// Of a scenario, with nothing measured yet.
    #[must_use]
    pub const fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            settings: Vec::new(),
            measured: Vec::new(),
        }
    }

    /// Notes a setting that the figures depend on.
    #[must_use]
    pub fn setting(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    /// Adds a figure.
    pub fn measured(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = name.into();
        self.measured.push(Measure { name, value, unit });
    }

    /// The figure of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        let measure = self.measured.iter().find(|measure| measure.name == name)?;
        Some(measure.value)
    }

    /// `{"scenario": …, "settings": {…}, "measured": [{"name": …, "value": …, "unit": …}, …]}`
    #[must_use]
    pub fn to_json(&self) -> Value {
        let settings: serde_json::Map<_, _> = self
            .settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let measured = self
            .measured
            .iter()
            .map(|Measure { name, value, unit }| json!({"name": name, "value": value, "unit": unit}));
        json!({
            "scenario": self.scenario,
            "settings": settings,
            "measured": measured.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scenario)?;
        for (name, value) in &self.settings {
            write!(f, " {name}={value}")?;
        }
        writeln!(f)?;
        let width = self.measured.iter().map(|measure| measure.name.len()).max();
        let width = width.unwrap_or_default();
        for Measure { name, value, unit } in &self.measured {
            // Three digits are more than the noise leaves.
            let decimals = if value.abs() < 10.0 {
                2
            } else {
                usize::from(value.abs() < 100.0)
            };
            writeln!(f, "  {name:width$}  {value:>12.decimals$} {unit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_table_and_as_json() {
        let mut report = Report::new("hold").setting("streams", 1_000);
        report.measured("memory per stream", 1_536.4, "bytes");
        report.measured("idle", 0.25, "% of a core");
        assert_eq!(
            report.to_string(),
            "hold: streams=1000\n  memory per stream          1536 bytes\n  idle                       0.25 % of a core\n"
        );
        let json = report.to_json();
        assert_eq!(json["settings"]["streams"], 1_000);
        assert_eq!(json["measured"][1]["value"], 0.25);
        assert_eq!(report.get("idle"), Some(0.25));
    }
}
