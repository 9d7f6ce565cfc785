//! Kedge's own process of this machine, as its run file names it: whether it runs, and the runtime that it uses.
//!
//! The file stays until `kedge down`: one that names no living process is a node that was stopped, or that crashed. One
//! that was stopped in order has said so beside it, and is no failure.

use std::path::Path;

use serde_json::Value;

use crate::node::reading::Reading;

/// Where a process's start stands in what follows its name in `/proc/PID/stat`.
const START: usize = 19;

/// Reads it, and returns the runtime's endpoint.
pub(super) fn read(data_dir: &Path) -> (Reading, Option<String>) {
    let mut reading = Reading::default();
    let path = data_dir.join("run.json");
    let Ok(text) = std::fs::read_to_string(&path) else { return (reading, None) };
    let Ok(run) = serde_json::from_str::<Value>(&text) else {
        reading.miss(path.display().to_string(), "it is damaged");
        return (reading, None);
    };
    let is_running =
        run["pid"].as_i64().and_then(started).is_some_and(|ticks| Some(ticks) == run["startTicks"].as_u64());
    let endpoint = run["runtimeEndpoint"].as_str().map(str::to_owned);
    if !is_running && ended_in_order(data_dir, &run) {
        return (reading, endpoint);
    }
    let of = data_dir.display().to_string();
    reading.measure(&format!("cat {}", path.display()), "kedge_runs", &of, f64::from(u8::from(is_running)), None);
    (reading, endpoint)
}

/// Whether the process of the run file, and no other, wrote that somebody ended it.
fn ended_in_order(data_dir: &Path, run: &Value) -> bool {
    let text = std::fs::read_to_string(data_dir.join("ended.json")).unwrap_or_default();
    serde_json::from_str::<Value>(&text)
        .is_ok_and(|ended| ended["pid"] == run["pid"] && ended["startTicks"] == run["startTicks"])
}

/// When a process was started, in ticks since the machine was.
fn started(pid: i64) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(START)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_diagnosis::Fact;
    use serde_json::json;

    #[test]
    fn a_process_that_is_gone_is_told_from_one_that_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        let own = i64::from(std::process::id());
        let ticks = started(own).expect("it runs");
        let facts = |ticks: u64| {
            let run = json!({"pid": own, "startTicks": ticks, "runtimeEndpoint": "unix:///x"});
            std::fs::write(directory.path().join("run.json"), run.to_string()).expect("it is written");
            let (reading, endpoint) = read(directory.path());
            assert_eq!(endpoint.as_deref(), Some("unix:///x"));
            let value = |fact: &Fact| if let Fact::Measure(measure) = fact { Some(measure.value) } else { None };
            reading.facts().filter_map(|(_, fact)| value(fact)).collect::<Vec<_>>()
        };
        assert_eq!((facts(ticks), facts(ticks + 1)), (vec![1.0], vec![0.0]));
        let ended = json!({"pid": own, "startTicks": ticks + 1}).to_string();
        std::fs::write(directory.path().join("ended.json"), ended).expect("it is written");
        assert_eq!((facts(ticks), facts(ticks + 1), facts(ticks + 2)), (vec![1.0], vec![], vec![0.0]));
    }
}
