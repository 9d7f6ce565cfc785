//! The kinds of fact.
//!
//! Invariant: a fact says what is, as it was read; keys, tokens and passwords are in none of them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fact {
    /// An object of the API: whole, or with `"excerpt": true` what a printed table or description says of it.
    Object(Value),
    /// Objects of a large cluster that are well, by their names only.
    Well(WellFact),
    /// A file of the directory of static pods.
    Manifest(ManifestFact),
    /// A file that something refers to.
    File(FileFact),
    /// A certificate in a file.
    Certificate(CertificateFact),
    /// A setting of the kernel: its name in sysctl's notation and its value, absent where there is no such setting.
    Setting {
        /// As in `net.ipv4.ip_forward`.
        name: String,
        /// Its text.
        value: Option<String>,
    },
    /// A mounted file system.
    FileSystem(FileSystemFact),
    /// A server of the cluster was called, and how it ended.
    Call {
        /// What was called, as in `https://127.0.0.1:6443/readyz`.
        target: String,
        /// The error, if it failed.
        error: Option<String>,
    },
    /// A line of a log. Its time is the item's.
    Log(LogFact),
    /// A unit of the service manager.
    Unit(UnitFact),
    /// A process.
    Process(ProcessFact),
    /// A socket that listens.
    Listener {
        /// As in `0.0.0.0:6443`.
        address: String,
        /// The process's name, where it may be known.
        process: Option<String>,
    },
    /// Something that was measured or counted, with its bound where it has one.
    Measure(MeasureFact),
    /// A configuration file, read.
    Document {
        /// What it is: `kubelet`, `kubelet-flags`, `containerd`, `cni`, `resolv.conf`, `multipath`, `hosts`, `kubeconfig`.
        name: String,
        /// The file.
        path: String,
        /// What it says, or why it cannot be read. Texts without a structure are a string. Keys and tokens are left out.
        content: Result<Value, String>,
    },
    /// A module of the kernel, and whether it is there (loaded or built in).
    Module {
        /// As in `br_netfilter`.
        name: String,
        /// Whether it is.
        loaded: bool,
    },
    /// Something of the network of a machine.
    Network(NetworkFact),
    /// A start of the machine, the present one last.
    Boot {
        /// Its id.
        id: String,
        /// Whether the one before ended in order, where that is known.
        clean: Option<bool>,
    },
}

impl fmt::Display for Fact {
    /// As a report quotes it, in one line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => write!(formatter, "{}", crate::object::subject(object)),
            Self::Well(well) => write!(formatter, "{} of kind {} in {}", well.names.len(), well.kind, well.namespace),
            Self::Manifest(manifest) => write!(formatter, "{}", manifest.path),
            Self::File(file) => write!(formatter, "{}: {:?}", file.path, file.kind),
            Self::Certificate(certificate) => write!(
                formatter,
                "{}: {} to {}",
                certificate.served_by.as_ref().unwrap_or(&certificate.path),
                certificate.not_before,
                certificate.not_after
            ),
            Self::Setting { name, value } => write!(formatter, "{name} = {}", value.as_deref().unwrap_or("(absent)")),
            Self::FileSystem(disk) => {
                write!(formatter, "{}: {} of {} bytes free", disk.path, disk.available, disk.size)
            }
            Self::Call { target, error } => write!(formatter, "{target}: {}", error.as_deref().unwrap_or("ok")),
            Self::Log(line) => write!(formatter, "{}", line.text),
            Self::Unit(unit) => write!(formatter, "{}: {} {}", unit.name, unit.active, unit.enabled),
            Self::Process(process) => {
                write!(
                    formatter,
                    "{} {} {} {}",
                    process.pid,
                    process.state,
                    process.command.join(" "),
                    process.waits_in
                )
            }
            Self::Listener { address, process } => {
                write!(formatter, "{address} {}", process.as_deref().unwrap_or("(unknown process)"))
            }
            Self::Measure(measure) => {
                write!(formatter, "{} {} = {}", measure.name, measure.of, measure.value)?;
                measure.limit.map_or(Ok(()), |limit| write!(formatter, " of {limit}"))
            }
            Self::Document { path, content, .. } => match content {
                Ok(_) => write!(formatter, "{path}"),
                Err(why) => write!(formatter, "{path}: {why}"),
            },
            Self::Module { name, loaded } => write!(formatter, "{name}: {}", if *loaded { "loaded" } else { "absent" }),
            Self::Network(network) => write!(formatter, "{network}"),
            Self::Boot { id, .. } => write!(formatter, "boot {id}"),
        }
    }
}

/// Objects that are well.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WellFact {
    /// Their kind, as in `Pod`.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
    /// Their names.
    pub names: Vec<String>,
}

/// A file of the directory of static pods.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestFact {
    /// The file.
    pub path: String,
    /// The pod in it, or why there is none.
    pub pod: Result<Value, String>,
}

/// A file, as it is found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileFact {
    /// Its path.
    pub path: String,
    /// What lies there.
    pub kind: FileKind,
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileKind {
    /// Nothing.
    Missing,
    /// A file without content.
    EmptyFile,
    /// A file.
    File,
    /// A directory without entries.
    EmptyDirectory,
    /// A directory.
    Directory,
    /// A socket, a device or something else.
    Other,
}

/// A certificate in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFact {
    /// The file.
    pub path: String,
    /// The subject's common name.
    pub common_name: String,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// Whether it is an authority's.
    pub is_authority: bool,
    /// The issuer's common name.
    #[serde(default)]
    pub issuer: String,
    /// Names and addresses that it is valid for.
    #[serde(default)]
    pub names: Vec<String>,
    /// SHA-256 of it, in hex.
    #[serde(default)]
    pub fingerprint: String,
    /// The address that served it, where it was not read from a file; `path` is then the file that should be served, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
}

/// A mounted file system.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSystemFact {
    /// A path on it.
    pub path: String,
    /// Size, in bytes.
    pub size: u64,
    /// What may still be written, in bytes.
    pub available: u64,
    /// Number of inodes; 0 where the file system has no such bound.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
}

/// A line of a log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogFact {
    /// Whose.
    pub source: LogSource,
    /// The line, without its time.
    pub text: String,
}

/// Whose log it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogSource {
    /// The kernel's.
    Kernel,
    /// A service of the machine: `kubelet`, `containerd`, `etcd`.
    Unit(String),
    /// A container of a pod.
    Container {
        /// Its pod's namespace.
        namespace: String,
        /// Its pod.
        pod: String,
        /// Its name.
        container: String,
        /// Whether it is the run before the present one.
        previous: bool,
    },
    /// A command of a person: `kubeadm`, `kubectl`, `kedge`.
    Command(String),
}

impl LogSource {
    /// Whether a program of this name wrote it: as a unit of that name, or as a container of it.
    pub fn is(&self, program: &str) -> bool {
        match self {
            Self::Unit(name) | Self::Command(name) => name.trim_end_matches(".service") == program,
            Self::Container { container, .. } => container == program,
            Self::Kernel => program == "kernel",
        }
    }
}

/// A unit of the service manager.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitFact {
    /// As in `kubelet`.
    pub name: String,
    /// `active`, `inactive`, `failed`, `activating`.
    pub active: String,
    /// `enabled`, `disabled`, `masked`, `static`; empty where it is unknown.
    pub enabled: String,
}

/// A process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessFact {
    /// Its id.
    pub pid: u32,
    /// Its command line; its short name in brackets for a thread of the kernel.
    pub command: Vec<String>,
    /// As /proc/PID/stat has it: `R`, `S`, `D`, `Z`.
    pub state: char,
    /// What it waits for in the kernel; empty where that is unknown.
    #[serde(default)]
    pub waits_in: String,
}

/// Something that was measured or counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeasureFact {
    /// What: `fsync_p99_seconds`, `inotify_instances`, `conntrack_entries`, `etcd_db_bytes`, `clock_offset_seconds`.
    pub name: String,
    /// Of what: a path, a user, an endpoint, a peer.
    #[serde(default)]
    pub of: String,
    /// How much.
    pub value: f64,
    /// How much there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
}

/// Something of the network of a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkFact {
    /// An interface.
    Interface {
        /// Its name.
        name: String,
        /// Its largest packet, in bytes.
        mtu: u32,
        /// `ethernet`, `vxlan`, `bridge`, `veth`, `ipip`, `loopback`, ...; empty where it is unknown.
        kind: String,
        /// Whether it is up.
        up: bool,
        /// Its addresses with their prefix lengths.
        addresses: Vec<String>,
    },
    /// A route.
    Route {
        /// As in `10.0.1.0/24` or `default`.
        to: String,
        /// The next hop, if there is one.
        via: Option<String>,
        /// The interface.
        interface: String,
    },
    /// The table of packet rules says this of a chain: its policy.
    ChainPolicy {
        /// As in `iptables FORWARD`.
        chain: String,
        /// `ACCEPT` or `DROP`.
        policy: String,
        /// Where its rules lead: names of other chains, `ACCEPT`, `DROP`.
        #[serde(default)]
        jumps: Vec<String>,
    },
    /// A port of another machine was called.
    Probe {
        /// The machine: its Node's name, or an address.
        to: String,
        /// `tcp` or `udp`.
        protocol: String,
        /// The port.
        port: u16,
        /// The error, if it failed.
        error: Option<String>,
    },
}

impl fmt::Display for NetworkFact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface { name, mtu, addresses, .. } => {
                write!(formatter, "{name}: mtu {mtu} {}", addresses.join(" "))
            }
            Self::Route { to, via: Some(via), interface } => write!(formatter, "{to} via {via} dev {interface}"),
            Self::Route { to, via: None, interface } => write!(formatter, "{to} dev {interface}"),
            Self::ChainPolicy { chain, policy, .. } => write!(formatter, "{chain}: {policy}"),
            Self::Probe { to, protocol, port, error } => {
                write!(formatter, "{to} {protocol}/{port}: {}", error.as_deref().unwrap_or("ok"))
            }
        }
    }
}
