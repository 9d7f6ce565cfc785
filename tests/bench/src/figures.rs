//! What was measured, as a table for people and JSON for machines.

use anyhow::Result;
use serde::Serialize;

/// One measured thing.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figure {
    /// The benchmark that it belongs to.
    pub(crate) bench: &'static str,
    /// What was done.
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_milliseconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_milliseconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) megabytes_per_second: Option<f64>,
    /// How it was done, where that is not clear.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
    /// What upstream measured on a machine of this class, or the goal that was set.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) compare: &'static str,
}

/// Every figure of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: String,
    figures: Vec<Figure>,
    skipped: Vec<String>,
}

impl Report {
    pub(crate) fn new(machine: String) -> Self {
        Self { machine, figures: Vec::new(), skipped: Vec::new() }
    }

    /// Adds a figure and shows it, so that a long run can be followed.
    pub(crate) fn add(&mut self, figure: Figure) {
        eprintln!("  {}: {}: {} {}", figure.bench, figure.what, number(figure.value), figure.unit);
        self.figures.push(figure);
    }

    /// Says what could not be measured, and why.
    pub(crate) fn skip(&mut self, text: String) {
        eprintln!("  skipped: {text}");
        self.skipped.push(text);
    }

    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(crate) fn table(&self) -> String {
        let heads = ["BENCH", "WHAT", "FIGURE", "P50 ms", "P99 ms", "MB/s", "UPSTREAM OR GOAL", "NOTE"];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(self.figures.iter().map(Figure::cells));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let mut text = format!("\n{}\n\n", self.machine);
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        for skipped in &self.skipped {
            text.push_str(&format!("skipped: {skipped}\n"));
        }
        text
    }
}

impl Figure {
    fn cells(&self) -> [String; 8] {
        let optional = |value: Option<f64>| value.map(number).unwrap_or_default();
        [
            self.bench.to_owned(),
            self.what.clone(),
            format!("{} {}", number(self.value), self.unit),
            optional(self.p50_milliseconds),
            optional(self.p99_milliseconds),
            optional(self.megabytes_per_second),
            self.compare.to_owned(),
            self.note.clone(),
        ]
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        below if below < 10.0 => format!("{value:.2}"),
        below if below < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The value that `share` (0 to 1) of the sorted values do not exceed; the middle one for 0.5.
pub(crate) fn percentile(sorted: &[u32], share: f64) -> u32 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

/// Microseconds as milliseconds.
pub(crate) fn milliseconds(microseconds: u32) -> f64 {
    f64::from(microseconds) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_sorted_values() {
        fn check(sorted: &[u32], share: f64, expected: u32) {
            assert_eq!(percentile(sorted, share), expected, "{sorted:?} {share}");
        }
        let hundred: Vec<u32> = (0..=100).collect();
        check(&hundred, 0.5, 50);
        check(&hundred, 0.99, 99);
        check(&hundred, 1.0, 100);
        check(&[7], 0.99, 7);
        check(&[1, 2, 3], 0.5, 2);
        check(&[], 0.5, 0);
    }

    #[test]
    fn the_table_is_aligned() {
        let mut report = Report::new("2 cores".to_owned());
        report.add(Figure { bench: "api", what: "get".to_owned(), value: 12_345.6, unit: "/s", ..Figure::default() });
        report.skip("node: not root".to_owned());
        let expected = "\n2 cores\n\n\
            BENCH  WHAT  FIGURE    P50 ms  P99 ms  MB/s  UPSTREAM OR GOAL  NOTE\n\
            api    get   12346 /s\n\
            skipped: node: not root\n";
        assert_eq!(report.table(), expected);
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        fn check(value: f64, expected: &str) {
            assert_eq!(number(value), expected);
        }
        check(0.1234, "0.12");
        check(12.34, "12.3");
        check(123.4, "123");
        check(40_000.0, "40000");
    }
}
