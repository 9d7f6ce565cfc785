//! The service proxy's rules in the kernel: how long a change of endpoints takes at 10, 1,000 and 10,000 Services, how long
//! the whole table takes and what it weighs, and what a connection pays for going through it; how many
//! names the cluster's DNS answers; how soon a node that is cut off is reported, and found again.
//!
//! Works on the proxy's plans and the kernel alone, in a network namespace of its own: what the API server and watches add
//! is measured by `api`. Invariant: a change counts when the kernel's generation number has moved, which is its commit.

mod commits;
mod names;
mod peers;
mod traffic;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_netfilter::{Nft, TableKeeper};
use kedge_netns::Namespace;
use kedge_proxy::{Config, NodeView, plan_node, plan_service, plan_skeleton};
use serde_json::{Value, json};

use self::commits::Commits;
use crate::Arguments;
use crate::figures::{Figure, Report};

const NODE_IP: &str = "192.0.2.2";
const SIZES: [u32; 3] = [10, 1_000, 10_000];
const ENDPOINTS: u32 = 3;
const CHANGES: u32 = 200;
const GOAL: &str = "goal: p99 < 20 ms, flat";

pub(crate) async fn run(_arguments: &Arguments, report: &mut Report) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        report.skip("network: it makes a network namespace, which needs root".to_owned());
        return Ok(());
    }
    for size in SIZES {
        let figures = tokio::task::spawn_blocking(move || rules(size)).await??;
        figures.into_iter().for_each(|figure| report.add(figure));
    }
    for measure in [traffic::measure, names::measure] {
        let figures = tokio::task::spawn_blocking(measure).await??;
        figures.into_iter().for_each(|figure| report.add(figure));
    }
    match tokio::task::spawn_blocking(peers::measure).await?? {
        Ok(figures) => figures.into_iter().for_each(|figure| report.add(figure)),
        Err(why) => report.skip(format!("network, peers: {why}")),
    }
    Ok(())
}

pub(super) fn config() -> Result<Config> {
    let mut config = Config::new("bench", vec![NODE_IP.parse()?], "unused");
    config.cluster_cidrs = vec!["10.244.0.0/16".parse()?];
    config.service_cidrs = vec!["10.96.0.0/12".parse()?];
    Ok(config)
}

/// A Service of type NodePort and its endpoints.
pub(super) fn service(number: u32, endpoints: &[(IpAddr, u16)]) -> Result<(Service, EndpointSlice)> {
    let (name, address) = (format!("svc-{number}"), Ipv4Addr::from(0x0a60_0100 + number));
    let metadata = json!({"namespace": "bench", "name": name});
    // Node ports are fewer than the largest table's Services.
    let node_port = (number < 2_000).then_some(30_000 + number);
    let spec = json!({"type": "NodePort", "clusterIP": address, "ports": [{"port": 80, "nodePort": node_port}]});
    let listed: Vec<Value> = endpoints.iter().map(|(address, _)| json!({"addresses": [address]})).collect();
    let port = endpoints.first().map_or(8080, |(_, port)| *port);
    let slice = json!({"metadata": {"namespace": "bench", "name": name}, "addressType": "IPv4",
        "ports": [{"port": port}], "endpoints": listed});
    Ok((serde_json::from_value(json!({"metadata": metadata, "spec": spec}))?, serde_json::from_value(slice)?))
}

fn endpoints(number: u32, first: u32) -> Vec<(IpAddr, u16)> {
    let address = |place| Ipv4Addr::from(0x0af4_0000 + (number * 4 + place) % 0xffff);
    (first..ENDPOINTS).map(|place| (IpAddr::V4(address(place)), 8080)).collect()
}

fn put(keeper: &mut TableKeeper, node: &NodeView, number: u32, endpoints: &[(IpAddr, u16)]) -> Result<()> {
    let (service, slice) = service(number, endpoints)?;
    keeper.put(&format!("bench/svc-{number}"), plan_service(&service, [&slice], node, false).fragment);
    Ok(())
}

/// The proxy's table with nothing but the node in it.
pub(super) fn keeper(config: &Config) -> TableKeeper {
    let mut keeper = TableKeeper::new(Nft::default(), plan_skeleton(config, false));
    keeper.put("node", plan_node(config, false));
    keeper
}

fn rules(size: u32) -> Result<Vec<Figure>> {
    let place = Namespace::new();
    place.block_on(move || async move {
        let config = config()?;
        let node = NodeView::new(&config);
        let (mut keeper, resident) = (keeper(&config), own_memory()?);
        for number in 0..size {
            put(&mut keeper, &node, number, &endpoints(number, 0))?;
        }
        let (planned, slab) = (own_memory()?, kernel_memory()?);
        let began = Instant::now();
        keeper.apply().await?;
        let loaded = began.elapsed();
        let kernel = kernel_memory()? - slab;
        let (mut swapped, mut counted, mut returned) = (Vec::new(), Vec::new(), Vec::new());
        let commits = Commits::watch()?;
        for change in 0..CHANGES {
            let number = change * 7919 % size;
            // Another address in the place of one, then one address fewer, then all again.
            for (first, replaced) in [(0, true), (1, false), (0, false)] {
                let mut endpoints = endpoints(number, first);
                if replaced {
                    endpoints[0].0 = IpAddr::from([10, 244, 255, 254]);
                }
                let began = Instant::now();
                put(&mut keeper, &node, number, &endpoints)?;
                keeper.apply().await?;
                returned.push(u32::try_from(began.elapsed().as_micros())?);
                let took = u32::try_from(commits.after(began)?.as_micros())?;
                if replaced { swapped.push(took) } else { counted.push(took) }
            }
        }
        Ok(vec![
            latency(format!("an endpoint replaced, of {size} Services"), swapped),
            latency(format!("an endpoint more or fewer, of {size} Services"), counted),
            latency(format!("until nft returned from each of these, {size}"), returned),
            figure(format!("the whole table written, {size} Services"), loaded.as_secs_f64(), "s", ""),
            figure(format!("kernel memory of the table, {size} Services"), megabytes(kernel), "MB", ""),
            figure(format!("plans in the process, {size} Services"), megabytes(planned - resident), "MB", ""),
        ])
    })
}

fn megabytes(kilobytes: i64) -> f64 {
    kilobytes as f64 * 1024.0 / 1e6
}

pub(super) fn figure(what: String, value: f64, unit: &'static str, compare: &'static str) -> Figure {
    Figure { bench: "network", what, value, unit, compare, ..Figure::default() }
}

pub(super) fn latency(what: String, mut micros: Vec<u32>) -> Figure {
    micros.sort_unstable();
    let at = |percent: usize| micros.get(micros.len() * percent / 100).map(|micros| f64::from(*micros) / 1000.0);
    let (p50, p99) = (at(50), at(99));
    let compare = if what.contains("Services") { GOAL } else { "" };
    let value = p50.unwrap_or_default();
    Figure { p50_milliseconds: p50, p99_milliseconds: p99, ..figure(what, value, "ms", compare) }
}

/// What the kernel holds for itself, in KiB.
fn kernel_memory() -> Result<i64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).context("the kernel counts its memory")?;
        line.split_whitespace().nth(1).context("there is a number")?.parse::<i64>().context("it is a number")
    };
    Ok(of("SUnreclaim:")? + of("VmallocUsed:")?)
}

/// What this process holds, in KiB.
fn own_memory() -> Result<i64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("the kernel counts memory")?;
    let number = line.split_whitespace().nth(1).context("there is a number")?.parse()?;
    ensure!(number > 0, "a process has memory");
    Ok(number)
}
