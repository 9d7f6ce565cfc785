//! The static pods of a control plane: upstream's names, flags, probes and host paths, around images that are made on the
//! machine.
//!
//! Pure but for [`write_manifest`], and for the question whether the authority's key is here. Invariant: a file appears whole
//! or not at all, so that the kubelet never reads half of one.

mod etcd;

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::certs::is_keyless;
use crate::cluster_configuration::{Argument, ClusterConfiguration, Component, LocalEndpoint};
use crate::host::{HostLayout, KUBERNETES_DIR};

pub use etcd::{EtcdMember, etcd_pod};

/// The control plane's components, in the order in which they are written.
pub const CONTROL_PLANE: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// What manifests are made of.
#[derive(Debug, Clone)]
pub struct ManifestFacts {
    /// What the control planes share.
    pub cluster: ClusterConfiguration,
    /// This one's own endpoint.
    pub local: LocalEndpoint,
    /// The node's name.
    pub node_name: String,
    /// The image with the components.
    pub image: String,
    /// The image with etcd.
    pub etcd_image: String,
    /// Whether the API server keeps objects in files of its own.
    pub embedded_store: bool,
}

/// A component's pod.
pub fn control_plane_pod(component: &str, facts: &ManifestFacts, layout: &HostLayout) -> Value {
    let pki = layout.certificates_dir().display().to_string();
    match component {
        "kube-apiserver" => apiserver(facts, &pki),
        "kube-controller-manager" => controller_manager(facts, &pki, is_keyless(&layout.pki(), "ca")),
        _ => scheduler(facts),
    }
}

/// Writes a pod where the kubelet finds it, and a copy that says how it was meant.
pub fn write_manifest(layout: &HostLayout, component: &str, pod: &Value) -> std::io::Result<()> {
    let text = serde_yaml::to_string(pod).map_err(std::io::Error::other)?;
    // Its temporary name begins with a dot, which the kubelet passes over.
    let write = |path: &Path| kedge_pki::write_private(path, text.as_bytes()).map_err(std::io::Error::other);
    std::fs::create_dir_all(layout.intended_manifests())?;
    write(&layout.intended_manifests().join(format!("{component}.yaml")))?;
    write(&layout.manifest(component))
}

fn apiserver(facts: &ManifestFacts, pki: &str) -> Value {
    let (cluster, local) = (&facts.cluster, &facts.local);
    let file = |name: &str| format!("{pki}/{name}");
    let mut flags = vec![
        flag("advertise-address", local.advertise_address),
        flag("allow-privileged", true),
        flag("authorization-mode", "Node,RBAC"),
        flag("client-ca-file", file("ca.crt")),
        flag("enable-admission-plugins", "NodeRestriction"),
        flag("enable-bootstrap-token-auth", true),
        flag("kubelet-client-certificate", file("apiserver-kubelet-client.crt")),
        flag("kubelet-client-key", file("apiserver-kubelet-client.key")),
        flag("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname"),
        flag("proxy-client-cert-file", file("front-proxy-client.crt")),
        flag("proxy-client-key-file", file("front-proxy-client.key")),
        flag("requestheader-allowed-names", "front-proxy-client"),
        flag("requestheader-client-ca-file", file("front-proxy-ca.crt")),
        flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        flag("requestheader-group-headers", "X-Remote-Group"),
        flag("requestheader-username-headers", "X-Remote-User"),
        flag("secure-port", local.bind_port),
        flag("service-account-issuer", format!("https://kubernetes.default.svc.{}", cluster.networking.dns_domain)),
        flag("service-account-key-file", file("sa.pub")),
        flag("service-account-signing-key-file", file("sa.key")),
        flag("service-cluster-ip-range", &cluster.networking.service_subnet),
        flag("tls-cert-file", file("apiserver.crt")),
        flag("tls-private-key-file", file("apiserver.key")),
    ];
    let mut volumes = vec![directory("k8s-certs", pki, true), directory("ca-certs", "/etc/ssl/certs", true)];
    if facts.embedded_store {
        flags.extend([flag("store", "embedded"), flag("store-dir", EMBEDDED_STORE_DIR)]);
        volumes.push(directory("kedge-store", EMBEDDED_STORE_DIR, false));
    } else {
        flags.extend(etcd::client_flags(facts, pki));
        volumes.extend(etcd::client_volumes(cluster, pki));
    }
    let probe = probe_host(local.advertise_address);
    component_pod(Pod {
        name: "kube-apiserver",
        image: &facts.image,
        flags,
        component: &cluster.api_server,
        cpu: "250m",
        volumes,
        port: local.bind_port,
        liveness: http_probe(&probe, "/livez", "HTTPS", Probe::Liveness),
        readiness: Some(http_probe(&probe, "/readyz", "HTTPS", Probe::Readiness)),
        startup: http_probe(&probe, "/livez", "HTTPS", Probe::Startup),
        annotation: Some(("kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint", local.host_port())),
    })
}

/// Where the API server's own store is on the host.
pub const EMBEDDED_STORE_DIR: &str = "/var/lib/kedge/store";

fn controller_manager(facts: &ManifestFacts, pki: &str, is_keyless: bool) -> Value {
    let cluster = &facts.cluster;
    let kubeconfig = format!("{KUBERNETES_DIR}/controller-manager.conf");
    let file = |name: &str| format!("{pki}/{name}");
    let mut flags = vec![
        flag("authentication-kubeconfig", &kubeconfig),
        flag("authorization-kubeconfig", &kubeconfig),
        flag("bind-address", "127.0.0.1"),
        flag("client-ca-file", file("ca.crt")),
        flag("cluster-name", &cluster.cluster_name),
        flag("controllers", "*,bootstrapsigner,tokencleaner"),
        flag("kubeconfig", &kubeconfig),
        flag("leader-elect", true),
        flag("requestheader-client-ca-file", file("front-proxy-ca.crt")),
        flag("root-ca-file", file("ca.crt")),
        flag("service-account-private-key-file", file("sa.key")),
        flag("use-service-account-credentials", true),
    ];
    // Where the authority's key is kept elsewhere, nothing is signed here.
    if !is_keyless {
        flags.push(flag("cluster-signing-cert-file", file("ca.crt")));
        flags.push(flag("cluster-signing-key-file", file("ca.key")));
    }
    if !cluster.networking.pod_subnet.is_empty() {
        flags.push(flag("allocate-node-cidrs", true));
        flags.push(flag("cluster-cidr", &cluster.networking.pod_subnet));
        flags.push(flag("service-cluster-ip-range", &cluster.networking.service_subnet));
    }
    component_pod(Pod {
        name: "kube-controller-manager",
        image: &facts.image,
        flags,
        component: &cluster.controller_manager,
        cpu: "200m",
        volumes: vec![
            directory("k8s-certs", pki, true),
            directory("ca-certs", "/etc/ssl/certs", true),
            volume("kubeconfig", &kubeconfig, &kubeconfig, true, "FileOrCreate"),
        ],
        port: 10257,
        liveness: http_probe("127.0.0.1", "/healthz", "HTTPS", Probe::Liveness),
        readiness: None,
        startup: http_probe("127.0.0.1", "/healthz", "HTTPS", Probe::Startup),
        annotation: None,
    })
}

fn scheduler(facts: &ManifestFacts) -> Value {
    let kubeconfig = format!("{KUBERNETES_DIR}/scheduler.conf");
    component_pod(Pod {
        name: "kube-scheduler",
        image: &facts.image,
        flags: vec![
            flag("authentication-kubeconfig", &kubeconfig),
            flag("authorization-kubeconfig", &kubeconfig),
            flag("bind-address", "127.0.0.1"),
            flag("kubeconfig", &kubeconfig),
            flag("leader-elect", true),
        ],
        component: &facts.cluster.scheduler,
        cpu: "100m",
        volumes: vec![volume("kubeconfig", &kubeconfig, &kubeconfig, true, "FileOrCreate")],
        port: 10259,
        liveness: http_probe("127.0.0.1", "/livez", "HTTPS", Probe::Liveness),
        readiness: Some(http_probe("127.0.0.1", "/readyz", "HTTPS", Probe::Readiness)),
        startup: http_probe("127.0.0.1", "/livez", "HTTPS", Probe::Startup),
        annotation: None,
    })
}

/// What makes up a component's pod.
struct Pod<'a> {
    name: &'a str,
    image: &'a str,
    flags: Vec<Argument>,
    component: &'a Component,
    cpu: &'a str,
    volumes: Vec<(Value, Value)>,
    port: u16,
    liveness: Value,
    readiness: Option<Value>,
    startup: Value,
    annotation: Option<(&'a str, String)>,
}

fn component_pod(mut pod: Pod<'_>) -> Value {
    let extra = pod
        .component
        .extra_volumes
        .iter()
        .map(|extra| volume(&extra.name, &extra.host_path, &extra.mount_path, extra.read_only, &extra.path_type));
    pod.volumes.extend(extra);
    pod.volumes.sort_by(|a, b| a.0["name"].as_str().cmp(&b.0["name"].as_str()));
    let (volumes, mounts): (Vec<Value>, Vec<Value>) = pod.volumes.into_iter().unzip();
    let mut container = json!({
        "name": pod.name,
        "image": pod.image,
        "imagePullPolicy": "IfNotPresent",
        "command": command(pod.name, pod.flags, &pod.component.extra_args),
        "livenessProbe": pod.liveness,
        "startupProbe": pod.startup,
        "ports": [{"containerPort": pod.port, "name": PROBE_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": pod.cpu}},
        "volumeMounts": mounts,
    });
    if let Some(readiness) = pod.readiness {
        container["readinessProbe"] = readiness;
    }
    if !pod.component.extra_envs.is_empty() {
        container["env"] = json!(pod.component.extra_envs);
    }
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": "kube-system",
            "labels": {"component": pod.name, "tier": "control-plane"},
        },
        "spec": {
            "containers": [container],
            "hostNetwork": true,
            "priority": 2_000_001_000,
            "priorityClassName": "system-node-critical",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": volumes,
        },
    });
    if let Some((key, value)) = pod.annotation {
        object["metadata"]["annotations"] = json!({key: value});
    }
    object
}

const PROBE_PORT: &str = "probe-port";

/// The command, flags sorted by name; those of the user replace the usual ones of the same name.
fn command(name: &str, mut flags: Vec<Argument>, extra: &[Argument]) -> Vec<String> {
    flags.retain(|flag| !extra.iter().any(|extra| extra.name == flag.name));
    flags.extend(extra.iter().cloned());
    flags.sort_by(|a, b| a.name.cmp(&b.name));
    let flags = flags.into_iter().map(|flag| format!("--{}={}", flag.name, flag.value));
    std::iter::once(name.to_owned()).chain(flags).collect()
}

fn flag(name: &str, value: impl ToString) -> Argument {
    Argument { name: name.to_owned(), value: value.to_string() }
}

fn directory(name: &str, path: &str, read_only: bool) -> (Value, Value) {
    volume(name, path, path, read_only, "DirectoryOrCreate")
}

/// A volume and its mount.
fn volume(name: &str, host: &str, mount: &str, read_only: bool, kind: &str) -> (Value, Value) {
    let mut mounted = json!({"mountPath": mount, "name": name});
    if read_only {
        mounted["readOnly"] = json!(true);
    }
    (json!({"name": name, "hostPath": {"path": host, "type": kind}}), mounted)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Probe {
    Liveness,
    Readiness,
    Startup,
}

fn http_probe(host: &str, path: &str, scheme: &str, probe: Probe) -> Value {
    let (delay, failures, period) = match probe {
        Probe::Liveness => (10, 8, 10),
        Probe::Readiness => (0, 3, 1),
        Probe::Startup => (10, 24, 10),
    };
    let mut probe = json!({
        "failureThreshold": failures,
        "httpGet": {"host": host, "path": path, "port": PROBE_PORT, "scheme": scheme},
        "periodSeconds": period,
        "timeoutSeconds": 15,
    });
    if delay > 0 {
        probe["initialDelaySeconds"] = json!(delay);
    }
    probe
}

/// Where to probe what listens on an address: loopback of its family, where that is every address.
fn probe_host(address: IpAddr) -> String {
    match address {
        address if !address.is_unspecified() => address.to_string(),
        IpAddr::V4(_) => "127.0.0.1".to_owned(),
        IpAddr::V6(_) => "::1".to_owned(),
    }
}

/// The command of the first container in a manifest, for those who look at it.
pub fn manifest_command(path: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(path).ok()?;
    let pod: Value = serde_yaml::from_str(&text).ok()?;
    let words = pod["spec"]["containers"][0]["command"].as_array()?;
    Some(words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn facts() -> ManifestFacts {
        let mut cluster = ClusterConfiguration::default();
        cluster.networking.pod_subnet = "10.244.0.0/16".to_owned();
        ManifestFacts {
            cluster,
            local: LocalEndpoint { advertise_address: "192.0.2.2".parse().unwrap(), bind_port: 6443 },
            node_name: "n1".to_owned(),
            image: "localhost/kedge:v1".to_owned(),
            etcd_image: "localhost/etcd:3".to_owned(),
            embedded_store: false,
        }
    }

    fn words(pod: &Value) -> Vec<&str> {
        pod["spec"]["containers"][0]["command"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
    }

    #[test]
    fn flags_are_kubeadms() {
        let pod = control_plane_pod("kube-apiserver", &facts(), &HostLayout::default());
        let words = words(&pod);
        for flag in [
            "--advertise-address=192.0.2.2",
            "--etcd-servers=https://127.0.0.1:2379",
            "--client-ca-file=/etc/kubernetes/pki/ca.crt",
            "--service-cluster-ip-range=10.96.0.0/12",
        ] {
            assert!(words.contains(&flag), "{flag} is not in {words:?}");
        }
        assert_eq!(pod["spec"]["containers"][0]["startupProbe"]["failureThreshold"], 24);
        let pod = control_plane_pod("kube-controller-manager", &facts(), &HostLayout::default());
        assert!(super::tests::words(&pod).contains(&"--cluster-cidr=10.244.0.0/16"));
    }

    #[test]
    fn nothing_is_signed_where_the_authoritys_key_is_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let layout = HostLayout::below(dir.path());
        let signs = || {
            let pod = control_plane_pod("kube-controller-manager", &facts(), &layout);
            words(&pod).iter().filter(|word| word.starts_with("--cluster-signing-")).count()
        };
        kedge_pki::CertificateAuthority::ensure(&layout.pki(), "ca", "kubernetes").unwrap();
        assert_eq!(signs(), 2);
        std::fs::remove_file(layout.pki().join("ca.key")).unwrap();
        assert_eq!(signs(), 0);
    }

    #[test]
    fn extra_arguments_replace_the_usual_ones() {
        let mut facts = facts();
        facts.cluster.scheduler.extra_args = vec![flag("leader-elect", false), flag("v", 4)];
        let pod = control_plane_pod("kube-scheduler", &facts, &HostLayout::default());
        let words = words(&pod);
        assert!(words.contains(&"--leader-elect=false") && words.contains(&"--v=4"), "{words:?}");
        assert!(!words.contains(&"--leader-elect=true"), "{words:?}");
    }

    #[test]
    fn an_embedded_store_needs_no_etcd() {
        let facts = ManifestFacts { embedded_store: true, ..facts() };
        let pod = control_plane_pod("kube-apiserver", &facts, &HostLayout::default());
        assert!(words(&pod).contains(&"--store=embedded"));
        assert!(!words(&pod).iter().any(|word| word.starts_with("--etcd")));
    }
}
