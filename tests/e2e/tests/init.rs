//! `kedge init` on a machine of its own: what it says, what it makes, that static pods follow their files, and that
//! `kedge reset` leaves a clean machine. Several machines are the field note's.
//!
//! One machine for all checks, in an order in which each leaves the cluster whole.

use kedge_e2e::{BUSYBOX, Machine, names_only};

const ADDRESS: &str = "198.51.100.11";
const NAME: &str = "init-1";
const CONFIGURATION: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 198.51.100.11}
timeouts: {controlPlaneComponentHealthCheck: 4m0s, etcdAPICall: 2m0s}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
controlPlaneEndpoint: init-1:6443
---
";

#[test]
fn a_machine_becomes_a_cluster_and_a_machine_again() {
    if !std::path::Path::new("/usr/bin/etcd").exists() {
        kedge_skip::skip("a_machine_becomes_a_cluster_and_a_machine_again", "etcd is not installed");
        return;
    }
    let Some(machine) = Machine::start(NAME, ADDRESS) else { return };
    let before = traces(&machine);
    machine.put("/root/kubeadm.yaml", &format!("{CONFIGURATION}{}", Machine::calm_kubelet()));
    preflight_names_what_is_wrong(&machine);
    a_dry_run_changes_nothing(&machine, &before);
    init(&machine);
    the_cluster_is_as_kubeadm_makes_it(&machine);
    without_a_network_the_node_says_so(&machine);
    with_the_network_pods_run(&machine);
    a_changed_manifest_takes_effect(&machine);
    a_phase_can_be_run_again(&machine);
    metrics_are_for_those_who_may(&machine);
    a_script_starts_the_kubelet_with_the_machine(&machine);
    reset(&machine, &before);
}

/// What a machine shows of a cluster.
fn traces(machine: &Machine) -> String {
    machine.sh(
        "ls -A /etc/kubernetes /var/lib/kubelet /var/lib/etcd /etc/cni/net.d /var/lib/cni /var/lib/kedge /var/log/pods \
         2>/dev/null | grep -v -e ':$' -e '^$' | sort; ip -o link | cut -d: -f2 | cut -d@ -f1 | sort; ip route | sed 's, linkdown,,' | sort; \
         ls /etc/init.d/kubelet /etc/rc*.d/*kubelet 2>/dev/null; nft list tables; ctr -n k8s.io containers ls -q; grep -c /var/lib/kubelet/ /proc/mounts || true",
    )
}

fn preflight_names_what_is_wrong(machine: &Machine) {
    machine.sh("echo 0 > /proc/sys/net/ipv4/ip_forward; mkdir -p /etc/kubernetes/manifests; touch /etc/kubernetes/manifests/etcd.yaml");
    let output =
        machine.try_sh("$KEDGE init phase preflight --config /root/kubeadm.yaml --ignore-preflight-errors=NumCPU");
    assert!(!output.ok, "{}", output.all());
    let text = output.all();
    for line in [
        "[preflight] Running pre-flight checks",
        "[config] WARNING: InitConfiguration.timeouts.etcdAPICall has no effect here",
        "error execution phase preflight",
        "[preflight] Some fatal errors occurred:",
        "[ERROR FileAvailable--etc-kubernetes-manifests-etcd.yaml]: /etc/kubernetes/manifests/etcd.yaml already exists",
        "[ERROR FileContent--proc-sys-net-ipv4-ip_forward]: /proc/sys/net/ipv4/ip_forward contents are not set to 1",
        "[preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    machine.sh("rm -r /etc/kubernetes");
}

fn a_dry_run_changes_nothing(machine: &Machine, before: &str) {
    let text = machine.sh("$KEDGE init --dry-run --fix --config /root/kubeadm.yaml --ignore-preflight-errors=all");
    for line in [
        "[dryrun] Would write file \"/etc/kubernetes/manifests/kube-apiserver.yaml\" with content:",
        "[dryrun] Would start the kubelet",
        "[dryrun] Would apply the addon CoreDNS",
        "Your Kubernetes control-plane has initialized successfully!",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert_eq!(traces(machine), before);
}

fn init(machine: &Machine) {
    let text = machine.sh("$KEDGE init --fix --upload-certs --config /root/kubeadm.yaml 2>&1");
    for line in [
        "[init] Using Kubernetes version: v1.36.0",
        "[preflight] --fix: set net.ipv4.ip_forward to 1 (undo: sysctl -w net.ipv4.ip_forward=0)",
        "[certs] Generating \"ca\" certificate and key",
        "[certs] apiserver serving cert is signed for DNS names [kubernetes kubernetes.default kubernetes.default.svc \
         kubernetes.default.svc.cluster.local init-1] and IPs [10.96.0.1 198.51.100.11 127.0.0.1]",
        "[certs] Generating \"sa\" key and public key",
        "[kubeconfig] Writing \"super-admin.conf\" kubeconfig file",
        "[etcd] Creating static Pod manifest for local etcd in \"/etc/kubernetes/manifests\"",
        "[control-plane] Creating static Pod manifest for \"kube-scheduler\"",
        "[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/config.yaml\"",
        "[kubelet-start] Starting the kubelet",
        "[kubelet-check] The kubelet is healthy after ",
        "[control-plane-check] kube-apiserver is healthy after ",
        "[upload-config] Storing the configuration used in ConfigMap \"kubeadm-config\" in the \"kube-system\" Namespace",
        "[upload-certs] Storing the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace",
        "[mark-control-plane] Marking the node init-1 as control-plane by adding the taints \
         [node-role.kubernetes.io/control-plane:NoSchedule]",
        "[bootstrap-token] Creating the \"cluster-info\" ConfigMap in the \"kube-public\" namespace",
        "[addons] Applied essential addon: CoreDNS",
        "[addons] Applied essential addon: kube-proxy",
        "Your Kubernetes control-plane has initialized successfully!",
        "Please note that the certificate-key gives access to cluster sensitive data, keep it secret!",
        "Then you can join any number of worker nodes by running the following on each as root:",
        "\nkedge join init-1:6443 --token ",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

fn the_cluster_is_as_kubeadm_makes_it(machine: &Machine) {
    for pod in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let name = format!("pod/{pod}-{NAME}\n");
        machine.shows("the mirror of a static pod", "kubectl get pods -n kube-system -o name", &name);
    }
    let kept = machine.sh("kubectl get cm -n kube-system kubeadm-config -o jsonpath='{.data.ClusterConfiguration}'");
    assert!(kept.contains("controlPlaneEndpoint: init-1:6443"), "{kept}");
    let kubelet = machine.sh("kubectl get cm -n kube-system kubelet-config -o jsonpath='{.data.kubelet}'");
    assert!(kubelet.contains("staticPodPath: /etc/kubernetes/manifests"), "{kubelet}");
    machine.shows("a signed cluster-info", "kubectl get cm -n kube-public cluster-info -o yaml", "jws-kubeconfig-");
    machine.shows("the certificates of the control plane", "ls /etc/kubernetes/pki/etcd", "healthcheck-client.crt");
    let who = machine.sh("kubectl auth whoami -o jsonpath='{.status.userInfo}'");
    assert!(who.contains("kubernetes-admin") && who.contains("kubeadm:cluster-admins"), "{who}");
}

fn without_a_network_the_node_says_so(machine: &Machine) {
    let describe = format!("kubectl describe node {NAME}");
    machine.shows(
        "a node without network",
        &describe,
        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin \
         returns error: cni plugin not initialized",
    );
    let nodes = machine.sh("kubectl get nodes --no-headers");
    assert!(nodes.contains("NotReady") && nodes.contains("control-plane"), "{nodes}");
    machine.shows(
        "the event of pending DNS",
        "kubectl describe pods -n kube-system -l k8s-app=kube-dns",
        "had untolerated taint",
    );
    // That is what comes next, and no trouble.
    names_only(&machine.try_sh("$KEDGE doctor --output json"), "the time before a network", &["D15"]);
}

fn with_the_network_pods_run(machine: &Machine) {
    machine.load_busybox();
    let said = machine.sh("$KEDGE init phase addon network");
    assert!(said.contains("[addons] Applied essential addon: kedge-network"), "{said}");
    machine.sh("kubectl wait --for=condition=Ready node --all --timeout=120s");
    machine.sh("kubectl taint nodes --all node-role.kubernetes.io/control-plane-");
    machine.sh("kubectl rollout status -n kube-system deployment/coredns --timeout=120s");
    machine.sh("kubectl rollout status -n kube-system daemonset/kube-proxy --timeout=120s");
    machine.sh("kubectl rollout status -n kube-system daemonset/kedge-network --timeout=120s");
    machine.sh(&format!(
        "kubectl run asks --image={BUSYBOX} --restart=Never --command -- sh -c \
         'until nc -w 2 kubernetes.default.svc.cluster.local 443 </dev/null; do sleep 0.2; done; echo reached'"
    ));
    machine.shows("a pod that reaches a Service by its name", "kubectl logs asks", "reached");
    for agent in ["deployment/coredns", "daemonset/kube-proxy", "daemonset/kedge-network"] {
        let log = machine.sh(&format!("kubectl logs -n kube-system {agent} --tail=-1 2>&1"));
        assert!(!log.contains("forbidden"), "{agent} may not do its work:\n{log}");
    }
}

fn a_changed_manifest_takes_effect(machine: &Machine) {
    machine.sh(
        "sed 's/--leader-elect=true/--leader-elect=false/' /etc/kubernetes/manifests/kube-scheduler.yaml > /tmp/s.yaml && \
         mv /tmp/s.yaml /etc/kubernetes/manifests/kube-scheduler.yaml",
    );
    let pod = format!("kube-scheduler-{NAME}");
    machine.shows(
        "the scheduler with other flags",
        &format!(
            "kubectl get pod -n kube-system {pod} -o jsonpath='{{.spec.containers[0].command}} {{.status.phase}}'"
        ),
        "--leader-elect=false",
    );
    machine.sh("mv /etc/kubernetes/manifests/kube-scheduler.yaml /tmp/");
    machine.shows(
        "the end of the scheduler",
        "ctr -n k8s.io tasks ls | wc -l; pgrep -x kube-scheduler || echo none",
        "none",
    );
    machine.sh("mv /tmp/kube-scheduler.yaml /etc/kubernetes/manifests/");
    machine.shows("the scheduler again", "pgrep -x kube-scheduler >/dev/null && echo runs", "runs");
}

fn a_phase_can_be_run_again(machine: &Machine) {
    let said = machine.sh("$KEDGE init phase certs all --config /root/kubeadm.yaml");
    assert!(said.contains("Using existing ca certificate authority") && !said.contains("Generating"), "{said}");
    let said = machine.sh("$KEDGE init phase upload-certs --upload-certs --config /root/kubeadm.yaml");
    assert!(said.contains("[upload-certs] Using certificate key:"), "{said}");
    let unknown = machine.try_sh("$KEDGE init phase nonsense");
    assert!(!unknown.ok && unknown.all().contains("unknown phase"), "{}", unknown.all());
}

/// The manager and the scheduler ask the API server who asks them, and whether they answer.
fn metrics_are_for_those_who_may(machine: &Machine) {
    machine.sh(
        "kubectl create serviceaccount reads && kubectl create clusterrole reads --verb=get --non-resource-url=/metrics && \
         kubectl create clusterrolebinding reads --clusterrole=reads --serviceaccount=default:reads",
    );
    let ask = |port: u16, path: &str, how: &str| {
        machine.sh(&format!("curl -sk {how} -w '\\n%{{http_code}}' https://127.0.0.1:{port}{path}"))
    };
    let token = machine.sh("kubectl create token reads");
    let token = format!("-H 'Authorization: Bearer {}'", token.trim());
    for (port, families) in [
        (
            10257,
            [
                "leader_election_master_status{name=\"kube-controller-manager\"} 1",
                "workqueue_adds_total{name=\"deployment\"}",
            ],
        ),
        (10259, ["scheduler_cache_size{type=\"nodes\"} 1", "scheduler_pending_pods{queue=\"active\"} "]),
    ] {
        assert!(ask(port, "/healthz", "").ends_with("ok\n200"));
        let refused = ask(port, "/metrics", "");
        assert!(
            refused.contains("User \\\"system:anonymous\\\" cannot get path") && refused.ends_with("403"),
            "{refused}"
        );
        assert!(ask(port, "/metrics", "-H 'Authorization: Bearer nonsense'").ends_with("401"));
        // A component that was started a moment ago has not done everything yet.
        let answered = "rest_client_requests_total{code=\"200\",host=\"198.51.100.11:6443\"";
        for family in families.into_iter().chain([answered]) {
            let asks = format!("curl -sk {token} https://127.0.0.1:{port}/metrics");
            machine.shows("a metric", &asks, family);
        }
        machine.shows(
            "an administrator's certificate",
            &format!(
                "kubectl config view --raw -o jsonpath='{{.users[0].user.client-certificate-data}}' | base64 -d > /tmp/a.crt; \
                 kubectl config view --raw -o jsonpath='{{.users[0].user.client-key-data}}' | base64 -d > /tmp/a.key; \
                 kubectl get --raw /metrics >/dev/null; curl -sk --cert /tmp/a.crt --key /tmp/a.key \
                 https://127.0.0.1:{port}/metrics | grep process_cpu_seconds_total; rm /tmp/a.crt /tmp/a.key"
            ),
            "process_cpu_seconds_total ",
        );
    }
}

fn a_script_starts_the_kubelet_with_the_machine(machine: &Machine) {
    if !std::path::Path::new("/usr/sbin/update-rc.d").exists() {
        return;
    }
    let script = "/etc/init.d/kubelet";
    assert!(machine.sh("ls /etc/rc2.d").contains("kubelet"), "it is not registered");
    let containers = || machine.sh("ctr -n k8s.io containers ls -q | sort");
    let before = containers();
    machine.sh(&format!("{script} status"));
    machine.sh(&format!("{script} stop"));
    let status = machine.try_sh(&format!("{script} status; echo code $?"));
    assert!(status.stdout.contains("code 3"), "{}", status.all());
    assert!(!machine.try_sh("pgrep -f '[k]edge kubelet '").ok);
    machine.sh(&format!("{script} start && {script} start && {script} status"));
    machine.shows("the kubelet again", "curl -s http://127.0.0.1:10248/healthz", "ok");
    assert_eq!(machine.sh("pgrep -f '[k]edge kubelet-keeper' | wc -l").trim(), "1");
    assert_eq!(containers(), before, "containers go on");
}

fn reset(machine: &Machine, before: &str) {
    let would = machine.sh("$KEDGE reset --dry-run");
    assert!(would.contains("[dryrun] Would stop the kubelet service"), "{would}");
    let said = machine.sh("$KEDGE reset --force 2>&1");
    for line in [
        "[reset] Stopping the kubelet service",
        "[reset] Unmounting mounted directories in \"/var/lib/kubelet\"",
        "The reset process does not remove:",
    ] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
    machine.sh("rm -f /root/kubeadm.yaml");
    assert_eq!(traces(machine), before, "{said}");
    assert!(!machine.try_sh("pgrep -f 'kedge (kubelet|kubelet-keeper)'").ok);
}
