//! A full node with the demo, in network and mount namespaces of the benchmark's own: nothing on the machine's network
//! is touched, and a containerd that runs on the machine is not seen, so kedge starts its own.

mod agent;
mod pods;
mod runtime;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::memory;
use crate::Arguments;
use crate::figures::{Figure, Report};
use crate::server::{Memory, Process, cpu_time};
use crate::target::Target;

const ADDRESS: &str = "10.250.0.2";
const DEMO_PORT: u16 = 30090;

/// How long the whole node may take.
const PATIENCE: Duration = Duration::from_secs(150);

/// How many pods are made one after the other.
const SINGLE: usize = 30;
/// How many pods a full node has.
const MANY: usize = 100;
/// After this, a node with many new pods is idle: its statuses are written, its volumes were looked at again, and what
/// only the burst needed was given back.
const SETTLE_MANY: Duration = Duration::from_secs(75);
/// How long the processor time of an idle process is counted.
const IDLE: Duration = Duration::from_secs(30);

/// After this a node that nobody uses is idle.
const SETTLE: Duration = Duration::from_secs(5);

/// Hides what others on the machine have, and makes an interface with the default route.
const SETUP: &str = "set -e
mount --make-rshared /
for hidden in /run/containerd /run/crio /run/k3s; do mkdir -p $hidden; mount -t tmpfs tmpfs $hidden; done
ip link set lo up
ip link add bench0 type veth peer name bench1
ip addr add 10.250.0.2/24 dev bench0
ip link set bench0 up
ip link set bench1 up
ip route add default via 10.250.0.1
echo ready
exec sleep 600";

const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
    evictionHard: {memory.available: 100Mi, nodefs.available: 16Mi}\n";

pub(crate) async fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        report.skip("node: it makes namespaces and runs containers, which needs root".to_owned());
        return Ok(());
    }
    let binary = arguments.binary()?;
    let dir = arguments.work_dir()?;
    let place = Place::make()?;
    let result = measure(&place, &binary, dir.path(), report).await;
    // Also after a failure: pods and mounts must not stay.
    let down = take_down(&place, &binary, dir.path());
    result.and(down)
}

async fn measure(place: &Place, binary: &Path, dir: &Path, report: &mut Report) -> Result<()> {
    let mut command = place.command(binary);
    command.args(["up", "--demo", "--node-ip", ADDRESS, "--node-name", "bench", "--output", "json", "--data-dir"]);
    command.arg(dir.join("data")).arg("--kubeconfig").arg(dir.join("config"));
    // How full this machine's disk is must not matter.
    let calm = dir.join("kubelet.yaml");
    std::fs::write(&calm, KUBELET)?;
    command.arg("--kubelet-config").arg(calm);
    let began = Instant::now();
    let mut process = Process::start(command, dir)?;
    let mut ready = None;
    while !process.output().contains('\n') {
        process.check_runs()?;
        if ready.is_none() && process.log().lines().any(is_ready) {
            ready = Some(began.elapsed());
        }
        ensure!(began.elapsed() < PATIENCE, "the node was not up after {PATIENCE:?}\n{}", process.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let up = began.elapsed();
    place.ask_demo()?;
    report.add(seconds("start to node Ready", ready.unwrap_or(up), ""));
    report.add(seconds("start to 3 demo replicas that answer", up, ""));
    tokio::time::sleep(SETTLE).await;
    let used = Memory::of(process.id())?;
    report.add(memory::figure("node", "kedge process, 3 demo pods, idle".to_owned(), used, "goal < 80 MB"));
    let image = measure_pods(place, &dir.join("data"), process.id(), report).await?;
    process.stop()?;
    agent::measure(place, binary, dir, &image, report).await
}

/// Pods one by one, against the runtime alone, and a hundred at once. Returns the image of their containers.
async fn measure_pods(place: &Place, data: &Path, process: u32, report: &mut Report) -> Result<String> {
    let target = Target::from_kubeconfig(&data.join("admin.conf"), None)?;
    let runtime = runtime::of(data).await?;
    let image = sandbox_image(&runtime).await?;
    let bare = runtime::bare_pods(&runtime, &image, &data.join("bare"), SINGLE).await?;
    report.add(latency("sandbox and container by the runtime alone, one by one", &bare, ""));
    let (to, of) = (target.clone(), image.clone());
    let single = place.inside(move || async move { pods::one_by_one(&to, &of, SINGLE).await })?;
    report.add(latency(
        "pod from creation to Running in a client's watch, one by one",
        &single,
        "upstream: about 570 ms",
    ));
    let ratio = f64::from(single[single.len() / 2]) / f64::from(bare[bare.len() / 2]);
    let (bench, unit, compare) = ("node", "x", "goal <= 1.3x");
    report.add(Figure {
        bench,
        what: "the same, ratio of medians".to_owned(),
        value: ratio,
        unit,
        compare,
        ..Figure::default()
    });
    let (to, of) = (target, image.clone());
    let many = place.inside(move || async move { pods::all_at_once(&to, &of, MANY).await })?;
    report.add(seconds(&format!("{MANY} pods from creation to all Running"), many, ""));
    tokio::time::sleep(SETTLE_MANY).await;
    let used = Memory::of(process)?;
    report.add(memory::figure("node", format!("kedge process, {MANY} pods, idle"), used, ""));
    report.add(at_rest(&format!("kedge process, {MANY} pods"), process, IDLE).await);
    Ok(image)
}

/// The image of sandboxes: small, there already, and its program only waits.
async fn sandbox_image(runtime: &kedge_cri::Runtime) -> Result<String> {
    let images = runtime.list_images(None).await?;
    let names = images.into_iter().flat_map(|image| image.repo_tags);
    names.into_iter().find(|name| name.contains("pause")).context("the runtime has no sandbox image")
}

fn seconds(what: &str, time: Duration, compare: &'static str) -> Figure {
    Figure {
        bench: "node",
        what: what.to_owned(),
        value: time.as_secs_f64(),
        unit: "s",
        note: "with images and a containerd of its own".to_owned(),
        compare,
        ..Figure::default()
    }
}

/// The median as the figure, of sorted microseconds.
fn latency(what: &str, sorted: &[u32], compare: &'static str) -> Figure {
    let at =
        |percent: usize| sorted.get(sorted.len() * percent / 100).copied().map(|micros| f64::from(micros) / 1000.0);
    Figure {
        bench: "node",
        what: what.to_owned(),
        value: at(50).unwrap_or_default(),
        unit: "ms",
        p50_milliseconds: at(50),
        p99_milliseconds: at(99),
        compare,
        ..Figure::default()
    }
}

/// Processor time of a process that has nothing to do, in percent of a core.
async fn at_rest(what: &str, process: u32, time: Duration) -> Figure {
    let before = cpu_time(process);
    tokio::time::sleep(time).await;
    let used = cpu_time(process).saturating_sub(before);
    Figure {
        bench: "node",
        what: format!("{what}, processor time at rest"),
        value: 100.0 * used.as_secs_f64() / time.as_secs_f64(),
        unit: "% of a core",
        compare: "goal < 1 %",
        ..Figure::default()
    }
}

/// The line of the step after which the node is ready.
fn is_ready(line: &str) -> bool {
    let line: Value = serde_json::from_str(line).unwrap_or_default();
    line["step"] == "node is ready" && line["result"] == "ok"
}

fn take_down(place: &Place, binary: &Path, dir: &Path) -> Result<()> {
    let mut command = place.command(binary);
    let output = command.args(["down", "--output", "json", "--data-dir"]).arg(dir.join("data")).output()?;
    if !output.status.success() {
        bail!("kedge down failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let left: Vec<_> = place.members().into_iter().map(|(_, name)| name).collect();
    ensure!(left.is_empty(), "kedge down left processes: {}", left.join(", "));
    Ok(())
}

/// The namespaces, kept by a process that sleeps in them.
struct Place {
    holder: Child,
}

impl Place {
    fn make() -> Result<Self> {
        let holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", SETUP])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start unshare")?;
        let mut place = Self { holder };
        let mut line = String::new();
        BufReader::new(place.holder.stdout.take().context("its output is piped")?).read_line(&mut line)?;
        if line != "ready\n" {
            let mut text = String::new();
            place.holder.stderr.take().context("its errors are piped")?.read_to_string(&mut text)?;
            bail!("cannot make namespaces: {}", text.trim());
        }
        Ok(place)
    }

    /// A command that runs in the namespaces; the process is the program's itself.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--"]).arg(program);
        command
    }

    /// Processes in the namespaces besides the one that keeps them, with their names.
    fn members(&self) -> Vec<(Pid, String)> {
        let namespace = |process: &str, kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
        let holder = self.holder.id().to_string();
        let own = (namespace(&holder, "net"), namespace(&holder, "mnt"));
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|process| *process != holder)
            .filter_map(|process| Some((Pid::from_raw(process.parse().ok()?), process)))
            .filter(|(_, process)| {
                let (network, mount) = (namespace(process, "net"), namespace(process, "mnt"));
                network.is_some() && (network == own.0 || mount == own.1)
            })
            .map(|(id, process)| (id, fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default()))
            .map(|(id, name)| (id, name.trim().to_owned()))
            .collect()
    }

    /// Runs work whose connections begin in the namespace, on a thread of its own that stays in it.
    fn inside<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
    {
        let network = File::open(format!("/proc/{}/ns/net", self.holder.id()))?;
        let thread = std::thread::spawn(move || {
            setns(network, CloneFlags::CLONE_NEWNET)?;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work())
        });
        thread.join().map_err(|_| anyhow!("the thread panicked"))?
    }

    /// Asks the demo through its NodePort.
    fn ask_demo(&self) -> Result<()> {
        let network = File::open(format!("/proc/{}/ns/net", self.holder.id()))?;
        // A thread of its own, because it stays in the namespace.
        let asked = std::thread::spawn(move || {
            setns(network, CloneFlags::CLONE_NEWNET)?;
            let address: SocketAddr = format!("{ADDRESS}:{DEMO_PORT}").parse()?;
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET /get HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "it answered: {answer}");
            Ok(())
        });
        asked.join().map_err(|_| anyhow!("the thread panicked"))?.context("the demo does not answer on its NodePort")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Each may have ended already.
        for (process, _) in self.members() {
            let _ = kill(process, Signal::SIGKILL);
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
