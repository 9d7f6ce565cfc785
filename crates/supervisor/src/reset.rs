//! `kedge reset`: takes off a machine what `kedge init` and `kedge join` put on it, in kubeadm's order and with its lines.
//!
//! Invariant: each step is tried whatever became of those before, only what Kedge made goes, and what stays is named with
//! the reason.

use std::fs;
use std::path::{Path, PathBuf};

use kedge_cri::{Runtime, discover_endpoint};
use kedge_lifecycle::{
    CERTIFICATES_DIR, EtcdMembers, EtcdMembersError, HostLayout, KUBELET_DIR, KUBELET_LOG, KUBERNETES_DIR,
    MANIFESTS_DIR, STATE_DIR, Say, manifest_command, own_init_script, remove_init_script, stop_kubelet, unmount_below,
};

use crate::error::Error;
use crate::kubelet::chain;

/// What the reset was asked for.
#[derive(Debug, Clone)]
pub struct ResetOptions {
    /// Whether nothing is changed.
    pub dry_run: bool,
    /// Where certificates are.
    pub certificates_dir: PathBuf,
    /// The container runtime's socket; the kubelet's, or one that is found, where absent.
    pub cri_socket: Option<String>,
    /// Whether the backups of upgrades go, too.
    pub cleanup_tmp_dir: bool,
}

/// Files besides directories.
const FILES: [&str; 6] = [
    "admin.conf",
    "super-admin.conf",
    "kubelet.conf",
    "bootstrap-kubelet.conf",
    "controller-manager.conf",
    "scheduler.conf",
];
/// What Kedge writes where the container runtime looks for its network.
const CNI_FILE: &str = "/etc/cni/net.d";
/// kubeadm's words; Kedge makes no such rules, and removes those of nftables that it made.
const LEFT_TO_PEOPLE: &str = "
The reset process does not reset or clean up iptables rules or IPVS tables.
If you wish to reset iptables, you must do so manually by using the \"iptables\" command.

If your cluster was setup to utilize IPVS, run ipvsadm --clear (or similar)
to reset your system's IPVS tables.

The reset process does not clean your kubeconfig files and you must remove them manually.
Please, check the contents of the $HOME/.kube/config file.
";
const CGROUPS: &str = "/sys/fs/cgroup";
const GROUP_TRIES: u32 = 20;
const GROUP_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
const ETCD_PORT: u16 = 2379;
const POD_LOGS: &str = "/var/log/pods";
const CONTAINER_LOGS: &str = "/var/log/containers";

/// Resets the machine. An error names everything that could not be done.
pub async fn reset(options: &ResetOptions, say: Say<'_>) -> Result<(), Error> {
    say("[preflight] Running pre-flight checks");
    if !nix_is_root() {
        return Err(Error::Component { component: "reset", why: "user is not running as root".to_owned() });
    }
    let etcd_data = etcd_data_dir();
    let endpoint = endpoint(options).await;
    let mut reset = Reset { options, say, failed: Vec::new() };
    reset.membership().await;
    reset.kubelet().await;
    reset.pods(endpoint.as_deref()).await;
    reset.groups().await;
    reset.mounts();
    reset.rules().await;
    reset.directories(etcd_data);
    reset.files();
    reset.say_what_stays();
    match reset.failed.is_empty() {
        true => Ok(()),
        false => Err(Error::Component { component: "reset", why: reset.failed.join("; ") }),
    }
}

fn nix_is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Where the etcd of the manifest keeps its data.
fn etcd_data_dir() -> Option<PathBuf> {
    let words = manifest_command(&Path::new(MANIFESTS_DIR).join("etcd.yaml"))?;
    words.iter().find_map(|word| word.strip_prefix("--data-dir=")).map(PathBuf::from)
}

/// The runtime that the kubelet was told of, else one that answers.
async fn endpoint(options: &ResetOptions) -> Option<String> {
    if let Some(socket) = &options.cri_socket {
        return Some(if socket.contains("://") { socket.clone() } else { format!("unix://{socket}") });
    }
    let flags = fs::read_to_string(HostLayout::default().kubelet_flags()).unwrap_or_default();
    let told = flags.split([' ', '"', '\n']).find_map(|word| word.strip_prefix("--container-runtime-endpoint="));
    match told {
        Some(socket) => Some(socket.to_owned()),
        None => discover_endpoint().await,
    }
}

struct Reset<'a> {
    options: &'a ResetOptions,
    say: Say<'a>,
    failed: Vec<String>,
}

impl Reset<'_> {
    /// Says what is done, or would be; whether to do it.
    fn does(&self, done: &str, would: &str) -> bool {
        match self.options.dry_run {
            true => (self.say)(&format!("[dryrun] Would {would}")),
            false => (self.say)(&format!("[reset] {done}")),
        }
        !self.options.dry_run
    }

    fn note(&mut self, what: &str, error: &dyn std::error::Error) {
        self.failed.push(format!("{what}: {}", chain(error)));
    }

    /// Takes this machine out of an etcd of several members, which would miss it for ever. The last one just goes.
    async fn membership(&mut self) {
        let Some(words) = manifest_command(&Path::new(MANIFESTS_DIR).join("etcd.yaml")) else { return };
        let flag = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)).unwrap_or_default().to_owned();
        let own = flag("--initial-advertise-peer-urls=");
        let left: Result<(), EtcdMembersError> = async {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], ETCD_PORT));
            let etcd = EtcdMembers::at(address, &self.options.certificates_dir)?;
            let members = etcd.list().await?;
            let (ours, others): (Vec<_>, Vec<_>) = members.iter().partition(|known| known.member.peer_url == own);
            let (Some(ours), Some(_)) = (ours.first(), others.first()) else { return Ok(()) };
            if !self.does("Removing this machine's member from etcd", "remove this machine's member from etcd") {
                return Ok(());
            }
            let mut removed = Ok(());
            for other in others.iter().filter_map(|other| other.client) {
                removed = EtcdMembers::at(other, &self.options.certificates_dir)?.remove(&ours.id).await;
                if removed.is_ok() {
                    break;
                }
            }
            removed
        }
        .await;
        if let Err(error) = left {
            // A cluster that is broken is reset as well; who has other members is told.
            (self.say)(&format!(
                "[reset] WARNING: this machine may still be a member of etcd ({error}); see `etcdctl member list` elsewhere"
            ));
        }
    }

    async fn kubelet(&mut self) {
        if self.does("Stopping the kubelet service", "stop the kubelet service")
            && let Err(error) = stop_kubelet(&HostLayout::default()).await
        {
            self.note("the kubelet", &error);
        }
        let Some(script) = own_init_script(&HostLayout::default()) else { return };
        let what = script.display();
        if self.does(&format!("Removing \"{what}\""), &format!("remove \"{what}\""))
            && let Err(error) = remove_init_script(&script)
        {
            self.note("the init script", &error);
        }
    }

    /// Removes all pods: the kubelet that ran here knew no others.
    async fn pods(&mut self, endpoint: Option<&str>) {
        if !self.does("Removing Kubernetes-managed containers", "remove Kubernetes-managed containers") {
            return;
        }
        let Some(endpoint) = endpoint else { return };
        let removed = async {
            let runtime = Runtime::connect(endpoint).await?;
            for sandbox in runtime.list_pod_sandboxes(None).await? {
                runtime.stop_pod_sandbox(&sandbox.id).await?;
                runtime.remove_pod_sandbox(&sandbox.id).await?;
            }
            Ok::<_, kedge_cri::CriError>(())
        };
        if let Err(error) = removed.await {
            self.note("the containers", &error);
        }
    }

    /// The control groups of pods, which the kubelet made for them; one in which something runs stays.
    async fn groups(&mut self) {
        let groups = pod_groups(Path::new(CGROUPS));
        if groups.is_empty() || !self.does("Removing control groups of pods", "remove control groups of pods") {
            return;
        }
        for group in groups {
            let mut removed = remove_groups(&group);
            // What ended a moment ago may still count.
            for _ in 0..GROUP_TRIES {
                if removed.is_ok() {
                    break;
                }
                tokio::time::sleep(GROUP_PAUSE).await;
                removed = remove_groups(&group);
            }
            if let Err(error) = removed {
                self.failed.push(format!("{}: {error}", group.display()));
            }
        }
    }

    fn mounts(&mut self) {
        let done = format!("Unmounting mounted directories in \"{KUBELET_DIR}\"");
        if self.does(&done, &format!("unmount mounted directories in \"{KUBELET_DIR}\""))
            && let Err(error) = unmount_below(Path::new(KUBELET_DIR))
        {
            self.note("the volumes", &error);
        }
    }

    async fn rules(&mut self) {
        let what = "packet rules, routes, tunnels and CNI configuration of the pod network";
        if !self.does(&format!("Removing {what}"), &format!("remove {what}")) {
            return;
        }
        let state = Path::new(STATE_DIR);
        if let Err(error) = kedge_proxy::teardown(&state.join("proxy")).await {
            self.note("the proxy's rules", &error);
        }
        if let Err(error) = kedge_policy::teardown().await {
            self.note("the rules of network policies", &error);
        }
        if let Err(error) = kedge_network::teardown(&state.join("network")).await {
            self.note("the pod network", &error);
        }
    }

    fn directories(&mut self, etcd_data: Option<PathBuf>) {
        let mut dirs: Vec<PathBuf> = [MANIFESTS_DIR, KUBELET_DIR, STATE_DIR].map(PathBuf::from).into();
        dirs.push(self.options.certificates_dir.clone());
        dirs.extend(etcd_data);
        dirs.extend(self.options.cleanup_tmp_dir.then(|| Path::new(KUBERNETES_DIR).join("tmp")));
        dirs.extend(["/var/lib/cni", POD_LOGS, CONTAINER_LOGS, "/run/kedge"].map(PathBuf::from));
        dirs.retain(|dir| dir.exists());
        let names: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        let what = format!("contents of directories: [{}]", names.join(" "));
        if !self.does(&format!("Deleting {what}"), &format!("delete {what}")) {
            return;
        }
        for dir in dirs {
            if let Err(error) = empty(&dir) {
                self.failed.push(format!("{}: {error}", dir.display()));
            }
        }
    }

    fn files(&mut self) {
        let mut files: Vec<PathBuf> = FILES.iter().map(|name| Path::new(KUBERNETES_DIR).join(name)).collect();
        files.push(KUBELET_LOG.into());
        files.retain(|file| file.exists());
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        if !self
            .does(&format!("Deleting files: [{}]", names.join(" ")), &format!("delete files: [{}]", names.join(" ")))
        {
            return;
        }
        for file in files {
            if let Err(error) = fs::remove_file(&file) {
                self.failed.push(format!("{}: {error}", file.display()));
            }
        }
        // Empty ones are Kedge's own; others hold what a person put there.
        for dir in [CERTIFICATES_DIR, MANIFESTS_DIR, KUBERNETES_DIR, STATE_DIR, "/run/kedge"] {
            let _ = fs::remove_dir(dir);
        }
    }

    fn say_what_stays(&self) {
        let say = self.say;
        say("");
        say("The reset process does not remove:");
        say("- images in the container runtime: they may be used again (`ctr -n k8s.io images ls`)");
        for file in ["/etc/sysctl.d/90-kedge.conf", "/etc/modules-load.d/kedge.conf"] {
            if Path::new(file).exists() {
                say(&format!("- {file}: made by --fix, and others may rely on it by now; `rm {file}` removes it"));
            }
        }
        let others = others_in(Path::new(CNI_FILE));
        if !others.is_empty() {
            say("");
            say(&format!(
                "The reset process does not clean CNI configuration. To do so, you must remove {CNI_FILE}\n(what is left is \
                 not Kedge's: {})",
                others.join(", ")
            ));
        }
        say(LEFT_TO_PEOPLE);
    }
}

/// The groups of pods in every hierarchy, of either driver.
fn pod_groups(root: &Path) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let places = std::iter::once(root.to_owned()).chain(hierarchies);
    let groups = places.flat_map(|place| ["kubepods", "kubepods.slice"].map(|name| place.join(name)));
    // Several names may lead to one hierarchy.
    groups.filter(|group| group.is_dir() && !group.parent().is_some_and(Path::is_symlink)).collect()
}

/// Removes a group after those in it. Its files are the kernel's, and go with it.
fn remove_groups(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

fn others_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Removes everything in a directory, and leaves the directory, which may be a mount point.
fn empty(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_pods_go_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        for group in ["memory/kubepods/burstable/pod1", "cpu,cpuacct/kubepods", "unified/system", "kubepods.slice/a"] {
            fs::create_dir_all(dir.path().join(group)).unwrap();
        }
        std::os::unix::fs::symlink("cpu,cpuacct", dir.path().join("cpu")).unwrap();
        let groups = pod_groups(dir.path());
        assert_eq!(groups.len(), 3, "{groups:?}");
        groups.iter().for_each(|group| remove_groups(group).unwrap());
        assert_eq!(pod_groups(dir.path()), Vec::<PathBuf>::new());
        assert!(dir.path().join("unified/system").exists());
    }

    #[test]
    fn a_directory_is_emptied_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), "x").unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        empty(dir.path()).unwrap();
        assert_eq!(others_in(dir.path()), Vec::<String>::new());
    }
}
