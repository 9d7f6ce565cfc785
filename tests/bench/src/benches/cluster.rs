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
type Times = [Duration; 5];

const WHAT: [(&str, &str); 5] = [
    ("kedge init, until it says so", ""),
    ("kedge init to node Ready, with etcd and the pod network", "goal < 10 s"),
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
    first.sh(&format!(
        "$KEDGE init --with-network --upload-certs --certificate-key {KEY} --pod-network-cidr 10.244.0.0/16 \
         --control-plane-endpoint bench-1:6443 --config /root/calm.yaml --ignore-preflight-errors=all 2>&1"
    ));
    let made = began.elapsed();
    ready(&first, "bench-1");
    let made_ready = began.elapsed();
    let told = first.sh("$KEDGE token create --print-join-command");
    let join = format!("$KEDGE {} --ignore-preflight-errors=all", told.trim().trim_start_matches("kedge "));
    let began = Instant::now();
    worker.sh(&format!("{join} 2>&1"));
    let joined = began.elapsed();
    ready(&first, "bench-2");
    let joined_ready = began.elapsed();
    let began = Instant::now();
    second.sh(&format!("{join} --control-plane --certificate-key {KEY} 2>&1"));
    Ok([made, made_ready, joined, joined_ready, began.elapsed()])
}

fn ready(control_plane: &Machine, node: &str) {
    control_plane.sh(&format!("kubectl wait --for=condition=Ready node/{node} --timeout={PATIENCE}"));
}
