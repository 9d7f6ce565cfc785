//! Samples of everything, made when somebody asks and kept for a few seconds.
//!
//! Reading is blocking work and happens on threads for that. Invariants: one sample is made at a time, whoever asks
//! meanwhile gets it too; a sample is not older than `max_age` when it is handed out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kedge_cri::{Runtime, v1};
use kedge_meta::Clock;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::cgroup::{CgroupFs, Detail};
use crate::filesystem::{DiskUsage, FileSystem, file_system};
use crate::pods::{self, PodReader, RuntimeStats};
use crate::rates::Rates;
use crate::record::{CgroupRecord, Role};
use crate::summary::{self, ContainerStats, FsStats, NodeStats, PodStats, Summary};
use crate::target::{PodTarget, Targets};
use crate::volumes::{Trees, is_fresh};
use crate::{host, summary::RuntimeStats as RuntimeFs};

/// The runtime has to answer within this time, or its figures are left out.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(10);

/// Where a machine shows its figures.
#[derive(Debug, Clone)]
pub struct Roots {
    /// Control groups.
    pub cgroup: PathBuf,
    /// Processes.
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { cgroup: "/sys/fs/cgroup".into(), proc: "/proc".into() }
    }
}

/// What is measured, and how often.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the Node object.
    pub node_name: String,
    /// The kubelet's directory, whose file system is the node's.
    pub root_dir: PathBuf,
    /// The group of all pods: `/kubepods`, or `kubepods.slice`.
    pub pods_cgroup: String,
    /// Samples are handed out until they are this old.
    pub max_age: Duration,
    /// Where the machine shows its figures.
    pub roots: Roots,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            root_dir: "/var/lib/kubelet".into(),
            pods_cgroup: "/kubepods".to_owned(),
            max_age: Duration::from_secs(10),
            roots: Roots::default(),
        }
    }
}

/// Measures a node and its pods.
pub struct Collector {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    targets: Arc<dyn Targets>,
    runtime: Option<Runtime>,
    state: Arc<Mutex<State>>,
}

/// What reading needs and nobody changes.
struct Shared {
    config: Config,
    cgroups: CgroupFs,
    /// Of all pods.
    pods_group: String,
}

#[derive(Default)]
struct State {
    rates: Rates,
    trees: Trees,
    /// Some container has no group here: its runtime has to be asked.
    without_group: bool,
    short: Option<(Timestamp, Arc<Summary>)>,
    full: Option<(Timestamp, Arc<Summary>)>,
    records: Option<(Timestamp, Arc<Vec<CgroupRecord>>)>,
}

/// What only the runtime knows.
#[derive(Default)]
struct RuntimeFacts {
    containers: RuntimeStats,
    image_fs: Option<v1::ImageFsInfoResponse>,
}

impl Collector {
    /// A collector that asks `runtime` for what is in no control group.
    pub fn new(config: Config, targets: Arc<dyn Targets>, runtime: Option<Runtime>, clock: Arc<dyn Clock>) -> Self {
        let cgroups = CgroupFs::detect(&config.roots.cgroup);
        let slice = crate::slice_path(&config.pods_cgroup);
        let pods_group = if slice.starts_with('/') { slice } else { format!("/{slice}") };
        let shared = Arc::new(Shared { config, cgroups, pods_group });
        Self { shared, clock, targets, runtime, state: Arc::default() }
    }

    /// Everything.
    pub async fn summary(&self) -> Arc<Summary> {
        let state = self.state.clone().lock_owned().await;
        let now = self.clock.now();
        if let Some(summary) = self.fresh(state.full.as_ref(), now) {
            return summary;
        }
        let facts = self.ask_runtime(true).await;
        self.sample(state, facts, Detail::Full, now).await
    }

    /// Only processors and memory, which is much cheaper.
    pub async fn cpu_and_memory(&self) -> Arc<Summary> {
        let state = self.state.clone().lock_owned().await;
        let now = self.clock.now();
        if let Some(summary) = self.fresh(state.short.as_ref(), now) {
            return summary;
        }
        let facts = if state.without_group { self.ask_runtime(false).await } else { RuntimeFacts::default() };
        self.sample(state, facts, Detail::Basic, now).await
    }

    /// The node, with its file systems.
    pub async fn node(&self) -> NodeStats {
        self.summary().await.node.clone()
    }

    /// The pods, with their volumes and ephemeral storage.
    pub async fn pods(&self) -> Vec<PodStats> {
        self.summary().await.pods.clone()
    }

    /// Every control group of the machine, of classes of pods, of pods and of containers.
    pub async fn records(&self) -> Arc<Vec<CgroupRecord>> {
        let mut state = self.state.clone().lock_owned().await;
        let now = self.clock.now();
        if let Some(records) = self.fresh(state.records.as_ref(), now) {
            return records;
        }
        let facts = self.ask_runtime(false).await;
        let (shared, targets) = (self.shared.clone(), self.targets.pods());
        let read = tokio::task::spawn_blocking(move || {
            let records = Arc::new(shared.records(&targets, &facts, now));
            state.records = Some((now, records.clone()));
            records
        });
        read.await.unwrap_or_default()
    }

    fn fresh<T>(&self, kept: Option<&(Timestamp, Arc<T>)>, now: Timestamp) -> Option<Arc<T>> {
        let (at, kept) = kept?;
        is_fresh(*at, now, self.shared.config.max_age).then(|| kept.clone())
    }

    async fn ask_runtime(&self, with_images: bool) -> RuntimeFacts {
        let Some(runtime) = &self.runtime else { return RuntimeFacts::default() };
        let ask = async {
            let containers = runtime.list_container_stats(None).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "the runtime does not say what containers use");
                Vec::new()
            });
            let image_fs = if with_images { runtime.image_fs_info().await.ok() } else { None };
            let by_id = |stats: v1::ContainerStats| Some((stats.attributes.as_ref()?.id.clone(), stats));
            RuntimeFacts { containers: containers.into_iter().filter_map(by_id).collect(), image_fs }
        };
        tokio::time::timeout(RUNTIME_PATIENCE, ask).await.unwrap_or_default()
    }

    async fn sample(
        &self,
        mut state: OwnedMutexGuard<State>,
        facts: RuntimeFacts,
        detail: Detail,
        now: Timestamp,
    ) -> Arc<Summary> {
        let (shared, targets) = (self.shared.clone(), self.targets.pods());
        let read = tokio::task::spawn_blocking(move || {
            let summary = Arc::new(shared.summary(&mut state, &targets, &facts, detail, now));
            state.short = Some((now, summary.clone()));
            if detail == Detail::Full {
                state.full = Some((now, summary.clone()));
            }
            summary
        });
        // It fails only while the process ends.
        read.await.unwrap_or_default()
    }
}

impl Shared {
    fn summary(
        &self,
        state: &mut State,
        targets: &[PodTarget],
        facts: &RuntimeFacts,
        detail: Detail,
        now: Timestamp,
    ) -> Summary {
        let node = self.node(&mut state.rates, facts, detail, now);
        let full = detail == Detail::Full;
        let mut reader = PodReader {
            cgroups: &self.cgroups,
            proc: &self.config.roots.proc,
            rates: &mut state.rates,
            trees: &mut state.trees,
            root_fs: if full { file_system(&self.config.root_dir) } else { None },
            layer_fs: if full { pods::layer_file_system(&facts.containers) } else { None },
            runtime: &facts.containers,
            now,
            detail,
            without_group: false,
        };
        let pods = targets.iter().map(|target| reader.pod(target)).collect();
        state.without_group = reader.without_group || (state.without_group && !facts.containers.is_empty());
        state.rates.end_round();
        if full {
            state.trees.end_round();
        }
        Summary { node, pods }
    }

    fn node(&self, rates: &mut Rates, facts: &RuntimeFacts, detail: Detail, now: Timestamp) -> NodeStats {
        let proc = &self.config.roots.proc;
        let (usage, memory) = host::usage(&self.cgroups, proc, detail);
        let mut stats = NodeStats {
            node_name: self.config.node_name.clone(),
            start_time: host::boot_time(proc).unwrap_or(now),
            cpu: Some(pods::cpu_stats("/", &usage, rates, now)),
            memory: Some(pods::memory_stats(&usage, memory.capacity, now)),
            swap: host::swap(&usage, memory, now),
            system_containers: self.all_pods(rates, memory.capacity, detail, now).into_iter().collect(),
            ..NodeStats::default()
        };
        if detail == Detail::Full {
            let system = file_system(&self.config.root_dir);
            stats.fs = system.map(|system| system.stats(now, Some(system.usage())));
            stats.io = pods::io_stats(&usage, now);
            stats.network = pods::network_stats(host::network(proc, None), now);
            stats.rlimit = Some(host::rlimit(proc, now));
            stats.runtime = facts.image_fs.as_ref().map(|info| runtime_fs(info, now));
        }
        stats
    }

    /// All pods together, as upstream shows them among the system's containers.
    fn all_pods(
        &self,
        rates: &mut Rates,
        capacity: Option<u64>,
        detail: Detail,
        now: Timestamp,
    ) -> Option<ContainerStats> {
        let usage = self.cgroups.read(&self.pods_group, detail)?;
        let limit = usage.limits.memory.or(capacity);
        Some(ContainerStats {
            name: "pods".to_owned(),
            start_time: host::boot_time(&self.config.roots.proc).unwrap_or(now),
            cpu: Some(pods::cpu_stats(&self.pods_group, &usage, rates, now)),
            memory: Some(pods::memory_stats(&usage, limit, now)),
            ..ContainerStats::default()
        })
    }

    fn records(&self, targets: &[PodTarget], facts: &RuntimeFacts, now: Timestamp) -> Vec<CgroupRecord> {
        let mut records = self.machine_records(now);
        let layer_fs = pods::layer_file_system(&facts.containers);
        for target in targets {
            self.pod_records(target, facts, layer_fs, now, &mut records);
        }
        records
    }

    fn machine_records(&self, now: Timestamp) -> Vec<CgroupRecord> {
        let proc = &self.config.roots.proc;
        let created_at = host::boot_time(proc).unwrap_or(now);
        let (usage, _) = host::usage(&self.cgroups, proc, Detail::Full);
        let system = file_system(&self.config.root_dir);
        let mut machine = blank(Role::Machine, "/".to_owned(), created_at, now);
        machine.usage = usage;
        machine.interfaces = host::network(proc, None);
        machine.fs = system.map(|system| system.stats(now, Some(system.usage())));
        let classes = class_groups(&self.pods_group).into_iter().filter_map(|id| {
            let usage = self.cgroups.usage(&id)?;
            Some(CgroupRecord { usage, ..blank(Role::Class, id, created_at, now) })
        });
        std::iter::once(machine).chain(classes).collect()
    }

    fn pod_records(
        &self,
        target: &PodTarget,
        facts: &RuntimeFacts,
        layer_fs: Option<FileSystem>,
        now: Timestamp,
        records: &mut Vec<CgroupRecord>,
    ) {
        let group = pods::pod_group(target);
        let of_pod = |role: Role, id: String, usage| CgroupRecord {
            namespace: target.namespace.clone(),
            pod: target.name.clone(),
            usage,
            ..blank(role, id, target.sandbox.created_at, now)
        };
        if let Some(usage) = self.cgroups.usage(&group) {
            records.push(of_pod(Role::Pod, group.clone(), usage));
        }
        if let Some((id, usage)) = pods::container_usage(&self.cgroups, &group, &target.sandbox.id, Detail::Full) {
            let interfaces = match target.sandbox.host_network {
                true => Vec::new(),
                false => pods::sandbox_interfaces(&self.cgroups, &self.config.roots.proc, &group, target),
            };
            let name = target.sandbox.id.clone();
            records.push(CgroupRecord { interfaces, name, ..of_pod(Role::Sandbox, id, usage) });
        }
        for container in &target.containers {
            let found = pods::container_usage(&self.cgroups, &group, &container.id, Detail::Full);
            let Some((id, usage)) = found else { continue };
            let layer = facts.containers.get(&container.id).and_then(pods::layer_usage);
            records.push(CgroupRecord {
                container: container.name.clone(),
                image: container.image.clone(),
                name: container.id.clone(),
                created_at: container.created_at,
                fs: layer.map(|usage| layer_stats(usage, layer_fs, now)),
                ..of_pod(Role::Container, id, usage)
            });
        }
    }
}

fn layer_stats(usage: DiskUsage, system: Option<FileSystem>, now: Timestamp) -> FsStats {
    system.unwrap_or_default().stats(now, Some(usage))
}

fn blank(role: Role, id: String, created_at: Timestamp, time: Timestamp) -> CgroupRecord {
    CgroupRecord {
        id,
        role,
        created_at,
        time,
        namespace: String::new(),
        pod: String::new(),
        container: String::new(),
        image: String::new(),
        name: String::new(),
        usage: Default::default(),
        interfaces: Vec::new(),
        fs: None,
    }
}

/// The group of all pods and those of its classes.
fn class_groups(pods_group: &str) -> [String; 3] {
    match pods_group.strip_suffix(".slice") {
        Some(stem) => {
            let name = stem.rsplit('/').next().unwrap_or(stem);
            let of = |class: &str| format!("{pods_group}/{name}-{class}.slice");
            [pods_group.to_owned(), of("burstable"), of("besteffort")]
        }
        None => [pods_group.to_owned(), format!("{pods_group}/burstable"), format!("{pods_group}/besteffort")],
    }
}

/// Where images and layers are, from what the runtime says.
fn runtime_fs(info: &v1::ImageFsInfoResponse, now: Timestamp) -> RuntimeFs {
    let one = |list: &[v1::FilesystemUsage]| -> Option<FsStats> {
        let usage = list.first()?;
        let used = DiskUsage {
            bytes: usage.used_bytes.as_ref().map_or(0, |bytes| bytes.value),
            inodes: usage.inodes_used.as_ref().map_or(0, |inodes| inodes.value),
        };
        let system = file_system(std::path::Path::new(&usage.fs_id.as_ref()?.mountpoint))?;
        Some(system.stats(now, Some(used)))
    };
    let image_fs = one(&info.image_filesystems);
    let container_fs = one(&info.container_filesystems).or_else(|| image_fs.clone());
    summary::RuntimeStats { image_fs, container_fs }
}

#[cfg(test)]
mod tests {
    use kedge_meta::ManualClock;

    use super::*;

    struct OnePod(PathBuf);

    impl Targets for OnePod {
        fn pods(&self) -> Vec<PodTarget> {
            vec![PodTarget {
                name: "p".to_owned(),
                namespace: "n".to_owned(),
                uid: "u".to_owned(),
                cgroup: "/kubepods/podu".to_owned(),
                sandbox: crate::SandboxTarget { id: "s".to_owned(), ..Default::default() },
                containers: vec![crate::ContainerTarget {
                    name: "c".to_owned(),
                    id: "i".to_owned(),
                    log_dir: self.0.join("logs/c"),
                    ..Default::default()
                }],
                volumes: vec![crate::VolumeTarget {
                    name: "v".to_owned(),
                    path: self.0.join("volume"),
                    measure: crate::VolumeMeasure::Tree,
                    claim: None,
                    ephemeral: true,
                }],
                log_dir: self.0.join("logs"),
                files: Vec::new(),
            }]
        }
    }

    struct Machine {
        directory: tempfile::TempDir,
        clock: ManualClock,
        collector: Collector,
    }

    impl Machine {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let clock = ManualClock::new(Timestamp::from_second(1000).unwrap());
            let roots = Roots { cgroup: directory.path().join("cgroup"), proc: directory.path().join("proc") };
            let machine = |path: &str, text: &str| {
                let path = directory.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            };
            machine("proc/meminfo", "MemTotal: 100 kB\nMemFree: 40 kB\n");
            machine("proc/self/net/dev", "eth0: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n");
            machine("proc/42/net/dev", "eth0: 11 2 0 0 0 0 0 0 13 4 0 0 0 0 0 0\n");
            machine("cgroup/pids/kubepods/podu/s/cgroup.procs", "42\n");
            machine("volume/file", "0123456789");
            machine("logs/c/0.log", "line\n");
            for group in ["", "/kubepods", "/kubepods/podu", "/kubepods/podu/i", "/kubepods/podu/s"] {
                machine(&format!("cgroup/memory{group}/memory.usage_in_bytes"), "50\n");
                machine(&format!("cgroup/memory{group}/memory.stat"), "total_inactive_file 20\n");
                machine(&format!("cgroup/cpuacct{group}/cpuacct.usage"), "0\n");
            }
            let config = Config { root_dir: directory.path().to_owned(), roots, ..Config::default() };
            let targets = Arc::new(OnePod(directory.path().to_owned()));
            let collector = Collector::new(config, targets, None, Arc::new(clock.clone()));
            Self { directory, clock, collector }
        }

        fn put(&self, path: &str, text: &str) {
            std::fs::write(self.directory.path().join(path), text).unwrap();
        }
    }

    #[tokio::test]
    async fn samples_are_kept_and_rates_lie_between_them() {
        let machine = Machine::new();
        let first = machine.collector.cpu_and_memory().await;
        assert_eq!(first.pods[0].containers[0].cpu.as_ref().unwrap().usage_nano_cores, None);
        machine.put("cgroup/cpuacct/kubepods/podu/i/cpuacct.usage", "5000000000\n");
        machine.clock.advance(Duration::from_secs(9));
        assert!(Arc::ptr_eq(&first, &machine.collector.cpu_and_memory().await));
        machine.clock.advance(Duration::from_secs(1));
        let second = machine.collector.cpu_and_memory().await;
        let cpu = second.pods[0].containers[0].cpu.as_ref().unwrap();
        assert_eq!((cpu.usage_nano_cores, cpu.usage_core_nano_seconds), (Some(500_000_000), Some(5_000_000_000)));
        assert_eq!(second.pods[0].ephemeral_storage, None);
        let memory = second.node.memory.as_ref().unwrap();
        assert_eq!((memory.working_set_bytes, memory.available_bytes), (Some(30), Some((100 << 10) - 30)));
    }

    #[tokio::test]
    async fn a_full_summary_has_files_and_interfaces() {
        let machine = Machine::new();
        let summary = machine.collector.summary().await;
        let pod = &summary.pods[0];
        assert_eq!(pod.network.as_ref().unwrap().default.rx_bytes, Some(11));
        assert_eq!(summary.node.network.as_ref().unwrap().default.rx_bytes, Some(1));
        let volume = pod.volume_stats[0].fs.used_bytes.unwrap();
        let ephemeral = pod.ephemeral_storage.as_ref().unwrap().used_bytes.unwrap();
        assert!(volume > 0 && ephemeral > volume, "{ephemeral} of which {volume}");
        assert!(summary.node.fs.as_ref().unwrap().capacity_bytes.unwrap() > 0);
        assert_eq!(summary.node.system_containers[0].name, "pods");
    }

    #[tokio::test]
    async fn every_group_has_a_record() {
        let machine = Machine::new();
        let records = machine.collector.records().await;
        let roles: Vec<(Role, &str)> = records.iter().map(|record| (record.role, record.id.as_str())).collect();
        assert_eq!(
            roles,
            [
                (Role::Machine, "/"),
                (Role::Class, "/kubepods"),
                (Role::Pod, "/kubepods/podu"),
                (Role::Sandbox, "/kubepods/podu/s"),
                (Role::Container, "/kubepods/podu/i"),
            ]
        );
        assert_eq!(records[3].interfaces[0].rx_bytes, Some(11));
        assert_eq!(records[4].container, "c");
    }
}
