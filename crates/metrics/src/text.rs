//! Prometheus' text format.
//!
//! Invariant: label values are escaped, and a family is announced once before its samples.

use std::fmt::Write;

use jiff::Timestamp;

/// Collects lines.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Announces a family.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.line(name, labels, value, None);
    }

    /// One sample of a known time.
    pub fn sample_at(&mut self, name: &str, labels: &[(&str, &str)], value: f64, time: Timestamp) {
        self.line(name, labels, value, Some(time.as_millisecond()));
    }

    /// A family with one sample.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64, millis: Option<i64>) {
        self.0.push_str(name);
        for (index, (key, value)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{key}=\"");
            escape(value, &mut self.0);
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = match value {
            value if value == f64::INFINITY => write!(self.0, " +Inf"),
            value => write!(self.0, " {value}"),
        };
        let _ = match millis {
            Some(millis) => writeln!(self.0, " {millis}"),
            None => writeln!(self.0),
        };
    }

    /// Lines that somebody else wrote.
    pub fn lines(&mut self, lines: &str) {
        self.0.push_str(lines);
    }

    /// Everything.
    pub fn finish(self) -> String {
        self.0
    }
}

fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// Nanoseconds as seconds.
pub fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

/// An amount as Prometheus counts.
#[allow(clippy::cast_precision_loss)]
pub fn amount(amount: u64) -> f64 {
    amount as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format() {
        let mut text = Text::default();
        text.family("a", "gauge", "What it is");
        text.sample("a", &[("l", "x\"y\\z"), ("m", "")], 1.5);
        text.sample_at("a", &[], 2.0, Timestamp::from_millisecond(1234).unwrap());
        text.sample("b", &[("le", "+Inf")], f64::INFINITY);
        let expected =
            "# HELP a What it is\n# TYPE a gauge\na{l=\"x\\\"y\\\\z\",m=\"\"} 1.5\na 2 1234\nb{le=\"+Inf\"} +Inf\n";
        assert_eq!(text.finish(), expected);
    }
}
