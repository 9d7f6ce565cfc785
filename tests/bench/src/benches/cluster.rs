//! A cluster of machines: how soon `kedge init` and `kedge join` make a node that is Ready.
//!
//! Machines are those of the end-to-end tests: namespaces with files, cgroups and a containerd of their own, and nothing in
//! that yet. Each run has new ones.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kedge_e2e::Machine;

use crate::Arguments;
use crate::figures::{Figure, Report};

/// Runs, each with a first control plane, a worker and a further control plane.
const RUNS: usize = 3;
const PATIENCE: &str = "120s";
const KEY: &str = "abababababababababababababababababababababababababababababababab";
const HOSTS: &str = "127.0.0.1 localhost\n198.51.100.41 bench-1\n198.51.100.42 bench-2\n198.51.100.43 bench-3\n";

/// What one run took, in the order in which figures are reported.
type Times = [Duration; 9];

const WHAT: [(&str, &str); 9] = [
    ("kedge init, until the images are made", ""),
    ("kedge init, until the kubelet is well", ""),
    ("kedge init, until the control plane is well", ""),
    ("kedge init, until it says so", ""),
    ("kedge init to node Ready, with etcd and the pod network", "goal < 10 s"),
    ("kedge join of a worker, until the images are made", ""),
    ("kedge join of a worker, until it says so", ""),
    ("kedge join of a worker to node Ready", "goal < 5 s"),
    ("kedge join of a control plane, until its components are well", ""),
];

pub(crate) async fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        report.skip("cluster: it makes namespaces and runs containers, which needs root".to_owned());
        return Ok(());
    }
    if !std::path::Path::new("/usr/bin/etcd").exists() {
        report.skip("cluster: etcd is not installed".to_owned());
        return Ok(());
    }
    let binary = arguments.binary()?;
    let used = kedge_e2e::kedge_binary().and_then(|path| path.canonicalize().ok());
    ensure!(used.as_ref() == Some(&binary), "this benchmark takes the binary from KEDGE_BINARY");
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        // It waits for other processes all the time.
        runs.push(tokio::task::spawn_blocking(one_run).await??);
    }
    for (index, (what, compare)) in WHAT.into_iter().enumerate() {
        let mut times: Vec<f64> = runs.iter().map(|run: &Times| run[index].as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let note = format!("median of {RUNS}: {:.1} to {:.1} s", times[0], times[RUNS - 1]);
        let value = times[RUNS / 2];
        report.add(Figure {
            bench: "cluster",
            what: what.to_owned(),
            value,
            unit: "s",
            compare,
            note,
            ..Figure::default()
        });
    }
    Ok(())
}

fn machine(name: &str, address: &str) -> Result<Machine> {
    let machine = Machine::start(name, address).context("there can be no machine here")?;
    machine.put("/etc/hosts", HOSTS);
    machine.put("/root/calm.yaml", &Machine::calm_kubelet());
    Ok(machine)
}

fn one_run() -> Result<Times> {
    let first = machine("bench-1", "198.51.100.41")?;
    let worker = machine("bench-2", "198.51.100.42")?;
    let second = machine("bench-3", "198.51.100.43")?;
    first.plug(&worker);
    first.plug(&second);
    let began = Instant::now();
    let told = Told::of(
        &first,
        &format!(
            "$KEDGE init --with-network --upload-certs --certificate-key {KEY} --pod-network-cidr 10.244.0.0/16 \
             --control-plane-endpoint bench-1:6443 --config /root/calm.yaml --ignore-preflight-errors=all"
        ),
    );
    let made = began.elapsed();
    ready(&first, "bench-1");
    let made_ready = began.elapsed();
    let images = told.before("[certs] ")?;
    let (kubelet, well) = (told.until("[kubelet-check] The kubelet is")?, told.until("is healthy after")?);
    let command = first.sh("$KEDGE token create --print-join-command");
    let join = format!("$KEDGE {} --ignore-preflight-errors=all", command.trim().trim_start_matches("kedge "));
    let began = Instant::now();
    let told = Told::of(&worker, &join);
    let joined = began.elapsed();
    ready(&first, "bench-2");
    let joined_ready = began.elapsed();
    let join_images = told.before("[kubelet-start] ")?;
    let began = Instant::now();
    second.sh(&format!("{join} --control-plane --certificate-key {KEY} 2>&1"));
    let further = began.elapsed();
    Ok([images, kubelet, well, made, made_ready, join_images, joined, joined_ready, further])
}

/// What a command said, each line with the time since the command began.
struct Told(Vec<(Duration, String)>);

impl Told {
    fn of(machine: &Machine, command: &str) -> Self {
        // What reads the lines must not hide that the command failed.
        let script = format!(
            "date +%s%N; {{ {command} 2>&1 || echo FAILED; }} | while IFS= read -r line; do echo \"$(date +%s%N) $line\"; done"
        );
        let text = machine.sh(&script);
        assert!(!text.contains("FAILED"), "{text}");
        let mut lines = text.lines();
        let nanos = |text: &str| text.parse::<u64>().unwrap_or_default();
        let began = nanos(lines.next().unwrap_or_default());
        let line = |line: &str| {
            let (time, text) = line.split_once(' ').unwrap_or((line, ""));
            (Duration::from_nanos(nanos(time).saturating_sub(began)), text.to_owned())
        };
        Self(lines.map(line).collect())
    }

    /// When the first line with a text came, which says that what is before it is done.
    fn before(&self, text: &str) -> Result<Duration> {
        let found = self.0.iter().find(|(_, line)| line.contains(text));
        found.map(|(time, _)| *time).with_context(|| format!("no line has {text:?}"))
    }

    /// When the last one came.
    fn until(&self, text: &str) -> Result<Duration> {
        let found = self.0.iter().rev().find(|(_, line)| line.contains(text));
        found.map(|(time, _)| *time).with_context(|| format!("no line has {text:?}"))
    }
}

fn ready(control_plane: &Machine, node: &str) {
    control_plane.sh(&format!("kubectl wait --for=condition=Ready node/{node} --timeout={PATIENCE}"));
}
