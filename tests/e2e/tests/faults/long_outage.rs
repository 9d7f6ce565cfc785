//! The API server away for ten minutes: what a node does meanwhile, and what it says about it, in figures.
//!
//! By hand, as it takes its time: `cargo nextest run -p kedge-e2e --run-ignored only -E 'test(ten_minutes)'`; the short
//! outage beside it runs always. `KEDGE_OUTAGE_SECONDS` makes it shorter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kedge_e2e::{NodeAgent, eventually};

use super::{BUSYBOX, SOON, control_plane_and_node, field, one_running, pod, sleeper, wait_for_pods};

/// Processor time in seconds and resident memory in kibibytes.
fn usage(pid: u32) -> (f64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    ((ticks(11) + ticks(12)) / 100.0, resident.unwrap_or_default())
}

/// The newest attempt of a pod's container, as the runtime knows it.
fn attempts(agent: &NodeAgent, pod: &str) -> u32 {
    agent.containers().into_iter().filter(|one| one.pod == pod).map(|one| one.attempt).max().unwrap_or_default()
}

/// How often each kind of line was logged, without what differs from line to line.
fn kinds_of_lines(log: &str) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for line in log.lines() {
        let words = line.split_whitespace().skip(1).take(7).collect::<Vec<_>>().join(" ");
        *kinds.entry(words).or_default() += 1;
    }
    kinds
}

#[test]
#[ignore = "takes ten minutes"]
fn an_api_server_that_is_away_for_ten_minutes() {
    let Some((mut host, agent)) = control_plane_and_node() else { return };
    let kubectl = host.kubectl();
    let container = |command: &str, more: &str| {
        format!("  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    command: [sh, -c, '{command}']\n{more}")
    };
    kubectl.apply(&pod("short-lived", &container("sleep 20", "")));
    let liveness = "    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 5, failureThreshold: 2}\n";
    kubectl.apply(&pod("unhealthy", &container("touch /tmp/alive; sleep 60; rm /tmp/alive; sleep 3600", liveness)));
    let readiness = "    readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1}\n";
    kubectl.apply(&pod("probed", &container("touch /tmp/ready; sleep 3600", readiness)));
    std::fs::write(agent.manifest("still"), sleeper("still")).expect("the manifest can be written");
    wait_for_pods(&kubectl, &["probed", "unhealthy", "still-node-1"]);
    let probed = one_running(&agent, "probed");
    let lasts = std::env::var("KEDGE_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let lasts = Duration::from_secs(lasts);
    let before = agent.log().len();
    let pid = agent.pid().expect("the kubelet runs");
    let (cpu, _) = usage(pid);

    host.kill();
    let away = Instant::now();
    assert!(agent.exec(&probed.id, &["rm", "/tmp/ready"]));
    let counts = eventually("the end of the outage", lasts + SOON, || {
        let counts = ["short-lived", "unhealthy"].map(|pod| attempts(&agent, pod));
        if away.elapsed() >= lasts { Ok(counts) } else { Err(format!("{counts:?}")) }
    });
    let (cpu_after, resident) = usage(pid);
    let log = agent.log()[before..].to_owned();
    println!("{:.0} s away: attempts of short-lived and unhealthy {counts:?}", away.elapsed().as_secs_f64());
    println!("kubelet: {:.1} s of processor time, {} MB resident", cpu_after - cpu, resident / 1024);
    let loud = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    println!("{} lines in the log, {loud} of them warnings and errors", log.lines().count());
    for (kind, count) in kinds_of_lines(&log) {
        println!("{count:6} {kind}");
    }
    assert!(counts[0] >= 4 && counts[1] >= 2, "{counts:?}");
    assert_eq!(one_running(&agent, "probed").id, probed.id);

    host.start();
    let back = Instant::now();
    eventually("what happened meanwhile, in the API", Duration::from_secs(15), || {
        let restarts =
            ["short-lived", "unhealthy"].map(|pod| field(&kubectl, pod, "{.status.containerStatuses[0].restartCount}"));
        let ready = field(&kubectl, "probed", "{.status.conditions[?(@.type=='Ready')].status}");
        let wanted = ["short-lived", "unhealthy"].map(|pod| attempts(&agent, pod).to_string());
        if restarts == wanted && ready == "False" { Ok(()) } else { Err(format!("{restarts:?} {wanted:?} {ready}")) }
    });
    println!("the API was right {:.1} s after its return", back.elapsed().as_secs_f64());
    super::wait_for_node(&kubectl, "True");
    assert!(log.lines().filter(|line| line.contains("the API server cannot be reached")).count() <= 6, "{log}");
}
