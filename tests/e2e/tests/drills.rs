//! Every drill of the binary on a real cluster: it shows, the doctor names its true cause first, its `--fix` or the
//! documented repair mends it, nobody else is restarted, nothing that was acknowledged is lost, and all is as it was.
//!
//! Two clusters for all drills, at the same time: test hosts of `kedge cluster`, and a machine with static pods. On each, one
//! drill after the other, so that what the doctor names can only come from one. `KEDGE_DRILLS_REPORT=<file>` keeps what was
//! measured, and `kedge drill matrix` writes `docs/drills.md` from it; `KEDGE_DRILLS=<id>,...` does a few alone.

#[path = "drills/calm.rs"]
mod calm;
#[path = "drills/control_plane.rs"]
mod control_plane;
#[path = "drills/crash.rs"]
mod crash;
#[path = "drills/outage.rs"]
mod outage;
#[path = "drills/test_hosts.rs"]
mod test_hosts;

use std::io::Write as _;
use std::process::Command;
use std::thread;

use kedge_e2e::{OF_THE_MACHINE, kedge_binary};
use serde_json::Value;

#[test]
fn every_drill_is_named_and_mended() {
    thread::scope(|scope| {
        scope.spawn(control_plane::are_done);
        test_hosts::are_done();
    });
}

/// Two at once: causes that have nothing to do with each other, or a quiet one beside one that makes others fail loudly.
/// Both must be named, and no failure beside them. `KEDGE_DRILLS` may name others.
const TOGETHER: [&str; 8] = [
    "scheduler-program+quota",
    "controller-manager-pki-path+scheduler-unknown-flag",
    "manifest-copy+certificate-expired",
    "nameservers+kubelet-config-broken",
    "configmap-missing+image-missing",
    "cordoned+claim-of-an-unknown-class",
    "node-without-power+no-storage-class",
    "small-mtu+no-inodes",
];

/// A scenario to do, and whether its pods need an image with a shell.
struct Chosen {
    id: String,
    shell: bool,
}

/// The scenarios of the binary, for clusters that have static pods or do not.
fn scenarios(static_pods: bool) -> Vec<Chosen> {
    let binary = kedge_binary().expect("there is one, as a cluster is up");
    let output = Command::new(binary).args(["drill", "list", "--output", "json"]).output().expect("it runs");
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let mut chosen: Vec<&Value> =
        all.iter().filter(|scenario| (scenario["where"]["staticPods"] == true) == static_pods).collect();
    // Those that only change objects say nothing that the others do not about what runs: they come first.
    chosen.sort_by_key(|scenario| scenario["diagnose"]["from"] != "cluster");
    let only = std::env::var("KEDGE_DRILLS").unwrap_or_default();
    let chosen = chosen.into_iter().map(|scenario| Chosen {
        id: scenario["id"].as_str().expect("a text").to_owned(),
        shell: scenario["where"]["shell"] == true,
    });
    let chosen: Vec<Chosen> = chosen.collect();
    let is_unknown = |id: &&str| !id.is_empty() && !all.iter().any(|scenario| scenario["id"] == **id);
    let unknown: Vec<&str> = only.split(['+', ',']).filter(is_unknown).collect();
    assert!(unknown.is_empty(), "KEDGE_DRILLS names what the binary does not have: {unknown:?}");
    // A pair needs what either needs.
    let is_static = |id: &str| all.iter().any(|one| one["id"] == id && one["where"]["staticPods"] == true);
    let others = only.split(',').filter(|id| id.contains('+') && !TOGETHER.contains(id));
    let pairs = TOGETHER.into_iter().chain(others).filter(|pair| pair.split('+').any(is_static) == static_pods);
    let pairs: Vec<Chosen> = pairs.map(|pair| Chosen { id: pair.to_owned(), shell: false }).collect();
    let is_wanted = |id: &str| only.is_empty() || only.split(',').any(|wanted| wanted == id);
    chosen.into_iter().chain(pairs).filter(|one| is_wanted(&one.id)).collect()
}

/// Does the scenarios, those with a shell and those without in a run each; what `kedge drill verify` printed.
fn in_two_runs(all: &[Chosen], mut verify: impl FnMut(&[&str], bool) -> String) -> String {
    let mut printed = String::new();
    for shell in [false, true] {
        let ids: Vec<&str> = all.iter().filter(|one| one.shell == shell).map(|one| one.id.as_str()).collect();
        if !ids.is_empty() {
            printed.push_str(&verify(&ids, shell));
        }
    }
    printed
}

/// Holds each line that `kedge drill verify` printed against what must be.
fn judge(text: &str, wanted: usize) {
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if let Ok(path) = std::env::var("KEDGE_DRILLS_REPORT") {
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("it can be opened");
        lines.iter().for_each(|line| writeln!(file, "{line}").expect("it can be written"));
    }
    let is_empty = |list: &Value| list.as_array().is_some_and(Vec::is_empty);
    let is_right = |line: &&Value| {
        // A machine that is short of everything shows more than what was broken; what was must be gone.
        let causes: Vec<&str> = line["cause"].as_str().unwrap_or_default().split('+').collect();
        let remains =
            |key: &Value| causes.contains(&key.as_str().unwrap_or_default().split(' ').next().unwrap_or_default());
        let is_mended = line["remaining"].as_array().is_some_and(|keys| !keys.iter().any(remains));
        let is_own = |key: &Value| {
            OF_THE_MACHINE.contains(&key.as_str().unwrap_or_default().split(' ').next().unwrap_or_default())
        };
        let is_alone = causes.len() == 1 || line["strangers"].as_array().is_some_and(|keys| keys.iter().all(is_own));
        line["rank"] == 1 && is_mended && is_alone && ["bystanders", "lost"].iter().all(|field| is_empty(&line[*field]))
    };
    let wrong: Vec<String> = lines.iter().filter(|line| !is_right(line)).map(|line| format!("{line:#}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(lines.len(), wanted, "{text}");
}
