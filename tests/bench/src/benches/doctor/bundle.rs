//! A support bundle of a gigabyte in the form that troubleshoot.sh gives it: objects by namespace, and a log of every
//! container and of every kubelet. Most lines tell of nothing, some of trouble that is over.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;

use super::cluster::{node, pod};

const NAMESPACES: usize = 20;
const PODS: usize = 100;
const NODES: usize = 50;
/// Bytes of a container's log, and of a kubelet's.
const LOG: usize = 430 << 10;
const KUBELET_LOG: usize = 2 << 20;
/// Pods that crash, one in each namespace.
pub(super) const CRASHING: usize = NAMESPACES;

/// Writes it below a directory, and returns its size in MB.
pub(super) fn write(directory: &Path) -> Result<u64> {
    let mut size = 0;
    let mut put = |name: &str, content: &mut dyn FnMut(&mut dyn Write) -> Result<()>| -> Result<()> {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(directory))?;
        let mut file = BufWriter::new(File::create(&path)?);
        content(&mut file)?;
        file.flush()?;
        size += path.metadata()?.len();
        Ok(())
    };
    put("cluster-resources/nodes.json", &mut |to| list(to, "Node", NODES, |number| named(&node(false), number, "")))?;
    for namespace in 0..NAMESPACES {
        let name = format!("team-{namespace}");
        put(&format!("cluster-resources/pods/{name}.json"), &mut |to| {
            list(to, "Pod", PODS, |number| named(&pod(number == 0), number, &name))
        })?;
        for number in 0..PODS {
            let path = format!("cluster-resources/pods/logs/{name}/web-{number}/c.log");
            put(&path, &mut |to| log(to, LOG, namespace * PODS + number, &of_container))?;
        }
    }
    for number in 0..NODES {
        put(&format!("host-logs/node-{number}/kubelet.log"), &mut |to| log(to, KUBELET_LOG, number, &of_kubelet))?;
    }
    Ok(size / 1_000_000)
}

fn list(to: &mut dyn Write, kind: &str, count: usize, item: impl Fn(usize) -> String) -> Result<()> {
    write!(to, r#"{{"kind":"{kind}List","apiVersion":"v1","metadata":{{}},"items":["#)?;
    for number in 0..count {
        write!(to, "{}{}", if number > 0 { ",\n" } else { "" }, item(number))?;
    }
    Ok(write!(to, "]}}")?)
}

fn named(object: &serde_json::Value, number: usize, namespace: &str) -> String {
    let node = (number % NODES).to_string();
    object.to_string().replace("@@", &number.to_string()).replace("@node@", &node).replace("shop", namespace)
}

/// Lines up to a size, a few each second of one morning.
fn log(to: &mut dyn Write, size: usize, seed: usize, line: &dyn Fn(u64, u64) -> String) -> Result<()> {
    let (mut written, mut count) = (0, 0);
    let mut random = seed as u64 + 1;
    while written < size {
        // Enough for lines that no two are the same.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let text = line(count, random);
        to.write_all(text.as_bytes())?;
        written += text.len();
        count += 1;
    }
    Ok(())
}

fn clock(count: u64) -> String {
    let second = count / 4;
    format!("{:02}:{:02}:{:02}.{:06}", second / 3600 % 12, second / 60 % 60, second % 60, count % 4 * 250_000)
}

fn of_container(count: u64, random: u64) -> String {
    let clock = clock(count);
    match random >> 32 & 31 {
        0 => format!(
            "2026-01-01T{clock}Z level=warn msg=\"request timed out, tried again\" trace={random:016x} attempt=1\n"
        ),
        1..8 => format!(
            "2026-01-01T{clock}Z level=debug msg=\"cache refreshed\" entries={} trace={random:016x}\n",
            random % 9973
        ),
        _ => format!(
            "2026-01-01T{clock}Z level=info msg=\"handled\" method=GET path=/v1/items/{} status=200 bytes={} took={}ms trace={random:016x}\n",
            random % 99_991,
            random % 65_521,
            random % 97
        ),
    }
}

fn of_kubelet(count: u64, random: u64) -> String {
    let clock = clock(count);
    match random >> 32 & 31 {
        0 => format!(
            "E0101 {clock}    1234 pod_workers.go:1301] \"Error syncing pod, skipping\" err=\"tried again\" podUID=\"{random:016x}\"\n"
        ),
        _ => format!(
            "I0101 {clock}    1234 kubelet.go:2405] \"SyncLoop (PLEG): event for pod\" pod=\"team-{}/web-{}\" event={{\"ID\":\"{random:016x}\",\"Type\":\"ContainerStarted\"}}\n",
            random % 20,
            random % 100
        ),
    }
}
