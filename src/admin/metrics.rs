//! `GET /metrics`: what can be counted, in the text format of Prometheus.

use std::fmt::Write as _;

/// The content type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A number that goes up and down.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// Its name: `tidings_streams`.
    pub name: &'static str,
    /// What it counts, and in which unit.
    pub help: &'static str,
    /// The shard that it is of, if it is of one.
    pub shard: Option<u16>,
    /// How much it is.
    pub value: f64,
}

impl Gauge {
    /// One of the node as a whole.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str, value: f64) -> Self {
        Self {
            name,
            help,
            shard: None,
            value,
        }
    }

    /// The same, of a shard.
    #[must_use]
    pub const fn of_shard(mut self, shard: u16) -> Self {
        self.shard = Some(shard);
        self
    }
}

/// The text. Those of one name come together, whatever their order was.
pub(super) fn render(gauges: &[Gauge]) -> String {
    let mut text = String::new();
    let mut names: Vec<&str> = Vec::new();
    for first in gauges {
        if names.contains(&first.name) {
            continue;
        }
        names.push(first.name);
        // Writing to a text does not fail.
        let _ = writeln!(text, "# HELP {0} {1}\n# TYPE {0} gauge", first.name, first.help);
        for gauge in gauges.iter().filter(|gauge| gauge.name == first.name) {
            let _ = match gauge.shard {
                Some(shard) => writeln!(text, "{}{{shard=\"{shard}\"}} {}", gauge.name, gauge.value),
                None => writeln!(text, "{} {}", gauge.name, gauge.value),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_told_once() {
        let last = |shard, value| Gauge::new("tidings_last", "The last.", value).of_shard(shard);
        let gauges = [
            last(0, 7.0),
            Gauge::new("tidings_streams", "Open streams.", 2.0),
            last(3, 0.5),
        ];
        assert_eq!(
            render(&gauges),
            "# HELP tidings_last The last.\n# TYPE tidings_last gauge\ntidings_last{shard=\"0\"} 7\ntidings_last{shard=\"3\"} 0.5\n\
             # HELP tidings_streams Open streams.\n# TYPE tidings_streams gauge\ntidings_streams 2\n"
        );
    }
}
