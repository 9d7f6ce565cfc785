//! What health checks came to: `/metrics/slis`.

use std::collections::BTreeMap;
use std::fmt::Write;

use parking_lot::Mutex;

use super::header;

/// A check and its path, without the slash.
type Check = (String, &'static str);
/// The last result, and how often it failed and passed.
type Results = (bool, [u64; 2]);

/// What each check came to.
#[derive(Debug, Default)]
pub(crate) struct Healthchecks(Mutex<BTreeMap<Check, Results>>);

impl Healthchecks {
    /// Notes what a check came to.
    pub(crate) fn checked(&self, name: &str, path: &'static str, passed: bool) {
        let mut results = self.0.lock();
        let (last, counts) = results.entry((name.to_owned(), path)).or_default();
        *last = passed;
        counts[usize::from(passed)] += 1;
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let results = self.0.lock();
        let name = "kubernetes_healthcheck";
        header(&mut text, name, "gauge", "This metric records the result of a single healthcheck.");
        for ((check, path), (passed, _)) in results.iter() {
            let _ = writeln!(text, "{name}{{name=\"{check}\",type=\"{path}\"}} {}", u8::from(*passed));
        }
        let name = "kubernetes_healthchecks_total";
        header(&mut text, name, "counter", "This metric records the results of all healthcheck.");
        for ((check, path), (_, counts)) in results.iter() {
            for (status, count) in ["error", "success"].into_iter().zip(counts).filter(|(_, count)| **count > 0) {
                let labels = format!("name=\"{check}\",status=\"{status}\",type=\"{path}\"");
                let _ = writeln!(text, "{name}{{{labels}}} {count}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_result_and_all_of_them_are_shown() {
        let checks = Healthchecks::default();
        checks.checked("etcd", "readyz", true);
        checks.checked("etcd", "readyz", false);
        checks.checked("ping", "livez", true);
        let text = checks.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 0",
                "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1",
                "kubernetes_healthchecks_total{name=\"etcd\",status=\"error\",type=\"readyz\"} 1",
                "kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"readyz\"} 1",
                "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"livez\"} 1",
            ]
        );
    }
}
