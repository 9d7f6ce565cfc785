//! The field note about building a cluster, from its first line to its last: two control planes and two workers behind a
//! balancer, each line that it quotes, and clean machines at the end.
//!
//! One cluster for all steps, in the note's order. Invariant: a quoted line that does not show is named.

#[path = "field_note/quotes.rs"]
mod quotes;
#[path = "field_note/transcript.rs"]
mod transcript;

use std::thread;
use std::time::Duration;

use kedge_e2e::{Machine, Output, Registry, Switch, eventually};
use quotes::QUOTES;
use transcript::Transcript;

/// The balancer, the name server and the registry.
const AROUND: &str = "198.51.100.10";
const ENDPOINT: &str = "nlb-kube-master.test:6443";
const NAMES: [(&str, &str); 4] = [
    ("kube-master-node1", "198.51.100.11"),
    ("kube-master-node2", "198.51.100.12"),
    ("kube-worker-node1", "198.51.100.13"),
    ("kube-worker-node2", "198.51.100.14"),
];
const IGNORED: &str = "--ignore-preflight-errors=NumCPU,Mem";
/// What stands for the network's own Deployment: it tolerates what Calico's does.
const CONTROLLERS: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: kube-controllers, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: kube-controllers}}
  template:
    metadata: {labels: {k8s-app: kube-controllers}}
    spec:
      nodeSelector: {kubernetes.io/os: linux}
      terminationGracePeriodSeconds: 1
      tolerations:
      - {key: CriticalAddonsOnly, operator: Exists}
      - {key: node-role.kubernetes.io/master, effect: NoSchedule}
      containers:
      - {name: kube-controllers, image: 'IMAGE', command: [sleep, '3600']}
";

/// How the second worker joins.
const JOIN_FILE: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery: {file: {kubeConfigPath: /root/discovery.conf}, tlsBootstrapToken: TOKEN}
nodeRegistration: {ignorePreflightErrors: [NumCPU], kubeletExtraArgs: [{name: v, value: '2'}]}
timeouts: {discovery: 1m0s, upgradeManifests: 5m0s}
";
const CONTROLLERS_POD: &str = "kubectl describe pod -n kube-system -l k8s-app=kube-controllers";
/// What a machine shows of a cluster: files, mounts, links, routes, rules, processes, containers, cgroups.
const TRACES: &str = "ls -A /etc/kubernetes /var/lib/kubelet /var/lib/etcd /etc/cni/net.d /var/lib/cni /var/lib/kedge \
    /run/kedge /var/log/pods /var/log/containers /etc/sysctl.d /etc/modules-load.d 2>/dev/null | grep -v -e ':$' -e '^$' | sort; \
    cut -d' ' -f1-3 /proc/mounts | sort; ip -o link | cut -d: -f2 | cut -d@ -f1 | sort; \
    ip route show table all | sed 's, linkdown,,' | sort; ip rule; ls /run/netns; \
    nft list tables | grep -v security-group; ps -eo comm= | sort; ctr -n k8s.io containers ls -q; \
    find /sys/fs/cgroup -mindepth 2 -type d | sort";

struct Site {
    switch: Switch,
    registry: Registry,
    machines: Vec<Machine>,
    said: Transcript,
    /// What the init command printed.
    told: String,
}

#[test]
fn a_cluster_is_built_and_taken_down_as_the_note_tells() {
    if !std::path::Path::new("/usr/bin/etcd").exists() {
        kedge_skip::skip("a_cluster_is_built_and_taken_down_as_the_note_tells", "etcd is not installed");
        return;
    }
    let Some(mut site) = site() else { return };
    site.preflight_and_repair();
    let before = site.traces();
    site.init();
    site.without_a_network();
    site.with_the_network();
    site.taints();
    site.workers_join();
    site.certificates_expire();
    site.a_second_control_plane_joins();
    site.bgp_is_blocked_and_opened();
    site.reset();
    let after = site.traces();
    let missing = site.said.missing(QUOTES);
    for ((name, _), (before, after)) in NAMES.iter().zip(before.iter().zip(&after)) {
        assert_eq!(after, before, "{name} is not what it was");
    }
    assert!(missing.is_empty(), "these lines of the note were not seen:\n{missing}");
}

/// Four machines as they come, on one segment.
fn site() -> Option<Site> {
    let first = Machine::start(NAMES[0].0, NAMES[0].1)?;
    let switch = Switch::start(AROUND);
    let others = thread::scope(|scope| {
        let started: Vec<_> =
            NAMES[1..].iter().map(|(name, address)| scope.spawn(|| Machine::start(name, address))).collect();
        started.into_iter().map(|thread| thread.join().expect("it starts")).collect::<Option<Vec<_>>>()
    })?;
    let machines: Vec<Machine> = std::iter::once(first).chain(others).collect();
    for machine in &machines {
        switch.plug(machine);
        // No tc, no names but that of the balancer, no module for bridges, and no security group that lets BGP pass.
        machine.sh(&format!(
            "mount --bind /dev/null $(readlink -f $(command -v tc)); mount -t tmpfs none /proc/sys/net/bridge; \
             echo 0 > /proc/sys/net/ipv4/ip_forward; echo nameserver {AROUND} > /etc/resolv.conf; \
             printf '127.0.0.1 localhost\\n{AROUND} nlb-kube-master.test\\n' > /etc/hosts; \
             mkdir -p /etc/containerd/certs.d/{AROUND}:5000; \
             echo '[host.\"http://{AROUND}:5000\"]' > /etc/containerd/certs.d/{AROUND}:5000/hosts.toml; \
             nft 'add table inet security-group; add chain inet security-group in {{ type filter hook input priority 0; }}; \
             add rule inet security-group in tcp dport 179 drop'"
        ));
        machine.put("/root/kubelet.yaml", &Machine::calm_kubelet());
    }
    switch.balance_to(&machines[0]);
    let registry = Registry::at(switch.namespace(), AROUND.parse().expect("it is one"), AROUND);
    Some(Site { switch, registry, machines, said: Transcript::default(), told: String::new() })
}

impl Site {
    fn master(&self) -> &Machine {
        &self.machines[0]
    }

    fn run(&mut self, step: &'static str, machine: usize, script: &str) -> String {
        self.said.run(step, &self.machines[machine], script)
    }

    fn init_command() -> String {
        format!(
            "$KEDGE init --control-plane-endpoint \"{ENDPOINT}\" --upload-certs --pod-network-cidr \"192.168.0.0/16\" \
             --config /root/kubelet.yaml {IGNORED}"
        )
    }

    /// The first attempt fails; what it names is mended by hand, as in the note.
    fn preflight_and_repair(&mut self) {
        let images = self.run("images", 0, "$KEDGE config images list; $KEDGE config images pull");
        assert!(images.contains("localhost/kedge:v") && images.contains("Made localhost/etcd:v"), "{images}");
        let failed = self.said.try_run("preflight", &self.machines[0], &Self::init_command());
        assert!(!failed.ok, "{}", failed.all());
        let hosts: String = NAMES.iter().map(|(name, address)| format!("{address} {name}\\n")).collect();
        for (index, machine) in self.machines.iter().enumerate() {
            machine.sh(&format!("printf '{hosts}' >> /etc/hosts"));
            // Where `modprobe br_netfilter` loads a module, this shows what it brings. One machine is left to --fix.
            machine.sh("umount /proc/sys/net/bridge");
            if index != 1 {
                machine.sh(
                    "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables; echo 1 > /proc/sys/net/ipv4/ip_forward",
                );
            }
        }
        let phase = "$KEDGE init phase preflight --config /root/kubelet.yaml ".to_owned() + IGNORED;
        let mended = self.said.run("repair", &self.machines[0], &phase);
        assert!(!mended.contains("Hostname") && !mended.contains("FileContent"), "{mended}");
    }

    fn init(&mut self) {
        self.told = self.run("init", 0, &Self::init_command());
    }

    /// The command by which others join, as init printed it.
    fn join_command(&self, is_control_plane: bool) -> String {
        let joined = self.told.replace("\\\n", " ");
        let commands: Vec<&str> =
            joined.lines().map(str::trim).filter(|line| line.starts_with("kedge join ")).collect();
        let wanted = commands.iter().find(|command| command.contains("--control-plane") == is_control_plane);
        let command = wanted.expect("init printed it").trim_start_matches("kedge ");
        format!("$KEDGE {} {IGNORED}", command.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn without_a_network(&mut self) {
        let running = "kubectl get pods -A --no-headers | grep -c '1/1 *Running'";
        self.master().shows("the pods that need no network", running, "5");
        let dns = "kubectl describe pod -n kube-system -l k8s-app=kube-dns";
        self.master().shows("the event of DNS", dns, "Preemption is not helpful for scheduling");
        self.run("no network", 0, "kubectl get nodes");
        self.run("no network", 0, "kubectl get pods -A");
        self.run("no network", 0, "kubectl describe node kube-master-node1");
        self.run("no network", 0, dns);
    }

    fn with_the_network(&mut self) {
        let image = self.registry.put_busybox("kube-controllers:v3.23.2");
        self.run("network", 0, "$KEDGE init phase addon network");
        self.master().put("/root/controllers.yaml", &CONTROLLERS.replace("IMAGE", &image));
        self.run("network", 0, "kubectl apply -f /root/controllers.yaml; rm /root/controllers.yaml");
        self.master().sh("kubectl wait --for=condition=Ready node --all --timeout=120s");
        self.master().sh("kubectl rollout status -n kube-system deployment/coredns --timeout=120s");
        self.master().sh("kubectl rollout status -n kube-system daemonset/kedge-network --timeout=120s");
        self.master().shows("the event of a pod that tolerates less", CONTROLLERS_POD, "Preemption is not helpful");
        self.run("network", 0, "kubectl get nodes");
        self.run("network", 0, "kubectl get pods -A");
        self.run("network", 0, CONTROLLERS_POD);
    }

    fn taints(&mut self) {
        // The note's command names a second taint, which control planes no longer have.
        let both = "kubectl taint nodes --all node-role.kubernetes.io/control-plane- node-role.kubernetes.io/master-";
        self.said.try_run("taints", &self.machines[0], both);
        let taints = "kubectl get nodes -o jsonpath='{.items[*].spec.taints}'";
        if self.master().sh(taints).contains("control-plane") {
            self.run("taints", 0, "kubectl taint nodes --all node-role.kubernetes.io/control-plane-");
        }
        self.master().shows("the start of what tolerates less", CONTROLLERS_POD, "Container started");
        self.master().sh("kubectl rollout status -n kube-system deployment/kube-controllers --timeout=120s");
        self.run("taints", 0, CONTROLLERS_POD);
        self.run("taints", 0, "kubectl get pods -A");
    }

    fn workers_join(&mut self) {
        let command = self.join_command(false);
        let wrong = self.machines[2].try_sh("$KEDGE join nlb-kube-master.test --token abcdef.0123456789abcdef");
        assert!(!wrong.ok && wrong.all().contains("without caCertHashes can be unsafe"), "{}", wrong.all());
        self.run("worker", 2, &command);
        self.ready("kube-worker-node1");
        self.run("worker", 0, "kubectl get nodes");
        let again = self.machines[2].try_sh(&command);
        let there = "[ERROR FileAvailable--etc-kubernetes-kubelet.conf]: /etc/kubernetes/kubelet.conf already exists";
        assert!(!again.ok && again.all().contains(there), "{}", again.all());
        self.the_second_joins_by_a_file();
        self.ready("kube-worker-node2");
        self.run("roles", 0, "kubectl label node kube-worker-node1 node-role.kubernetes.io/worker=");
        self.run("roles", 0, "kubectl label node kube-worker-node2 node-role.kubernetes.io/worker=");
        self.run("roles", 0, "kubectl get nodes");
    }

    /// What the cluster tells everybody, and a token, in files; the last phase alone.
    fn the_second_joins_by_a_file(&self) {
        let worker = &self.machines[3];
        let info = "kubectl get cm -n kube-public cluster-info -o jsonpath='{.data.kubeconfig}'";
        worker.put("/root/discovery.conf", &self.master().sh(info));
        let command = self.join_command(false);
        let token = command.split_whitespace().skip_while(|word| *word != "--token").nth(1).expect("init printed it");
        worker.put("/root/join.yaml", &JOIN_FILE.replace("TOKEN", token));
        worker.put("/etc/machine-id", &self.machines[2].sh("cat /etc/machine-id"));
        let would = worker.sh("$KEDGE join --config /root/join.yaml --dry-run 2>&1");
        for line in [
            "[config] WARNING: JoinConfiguration.timeouts.upgradeManifests has no effect here",
            "[WARNING MachineID]: /etc/machine-id is that of the node kube-worker-node1",
            "[dryrun] Would start the kubelet",
            "[dryrun] Would wait for the kubelet to be bootstrapped",
        ] {
            assert!(would.contains(line), "{line:?} is not in\n{would}");
        }
        worker.sh("test ! -e /etc/kubernetes && tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id");
        let said = worker.sh("$KEDGE join --config /root/join.yaml --skip-phases kubelet-wait-bootstrap 2>&1");
        assert!(!said.contains("TLS Bootstrap") && !said.contains("MachineID"), "{said}");
        let said = worker.sh("$KEDGE join phase kubelet-wait-bootstrap --config /root/join.yaml 2>&1");
        assert!(said.contains("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap"), "{said}");
        worker.sh("test ! -e /etc/kubernetes/bootstrap-kubelet.conf && rm /root/join.yaml /root/discovery.conf");
    }

    fn ready(&self, node: &str) {
        self.master().shows("the Node", "kubectl get nodes -o name", node);
        self.master().sh(&format!("kubectl wait --for=condition=Ready node/{node} --timeout=120s"));
    }

    /// Two hours go by for the token that the certificates belong to.
    fn certificates_expire(&mut self) {
        self.master().sh(
            "owner=$(kubectl get secret -n kube-system kubeadm-certs -o jsonpath='{.metadata.ownerReferences[0].name}'); \
             kubectl patch secret -n kube-system $owner -p '{\"stringData\": {\"expiration\": \"2020-01-01T00:00:00Z\"}}'",
        );
        let secret = "kubectl get secret -n kube-system kubeadm-certs 2>&1 || true";
        self.master().shows("the end of the certificates", secret, "not found");
        let command = self.join_command(true);
        let failed = self.said.try_run("expired", &self.machines[1], &format!("{command} --fix"));
        assert!(!failed.ok && failed.all().contains("--fix: set net.ipv4.ip_forward to 1"), "{}", failed.all());
    }

    fn a_second_control_plane_joins(&mut self) {
        let told = self.run("upload", 0, "$KEDGE init phase upload-certs --upload-certs");
        let key = told.lines().last().expect("it is printed").trim().to_owned();
        let command = self.join_command(true);
        let old = command.split_whitespace().skip_while(|word| *word != "--certificate-key").nth(1);
        let command = command.replace(old.expect("init printed it"), &key);
        self.run("control plane", 1, &command);
        self.ready("kube-master-node2");
        self.switch.balance_to(&self.machines[1]);
        self.run("control plane", 0, "kubectl get nodes");
        let own = "kubectl --server https://198.51.100.12:6443 get pods -n kube-system -o name";
        self.machines[1].shows("the second API server with the same objects", own, "pod/etcd-kube-master-node1");
        self.machines[1].shows("the second member of etcd", own, "pod/etcd-kube-master-node2");
    }

    /// All this time no packet went to port 179.
    fn bgp_is_blocked_and_opened(&mut self) {
        let agents = "kubectl get pods -n kube-system -l k8s-app=kedge-network --no-headers";
        let of_a_worker = "kubectl describe -n kube-system $(kubectl get pods -n kube-system -l k8s-app=kedge-network \
                           --field-selector spec.nodeName=kube-worker-node2 -o name)";
        self.agents_are(agents, "0/1");
        self.master().shows("the pods of the second control plane", "kubectl get pods -A | grep -c 'node2 *1/1'", "4");
        self.master().shows(
            "why they are not ready",
            of_a_worker,
            "BGP not established with 198.51.100.11,198.51.100.12",
        );
        self.run("blocked", 0, "kubectl get pods -A");
        self.run("blocked", 0, of_a_worker);
        let alone = self.run("blocked", 0, "ip route");
        assert!(NAMES[1..].iter().all(|(_, address)| !alone.contains(&format!("via {address}"))), "{alone}");
        for machine in &self.machines {
            machine.sh("nft delete table inet security-group");
        }
        self.agents_are(agents, "1/1");
        for (_, address) in &NAMES[1..] {
            self.master().shows("a route to another node's pods", "ip route", &format!(" via {address} dev uplink"));
        }
        self.run("opened", 0, "kubectl get pods -A");
        self.run("opened", 0, "ip route");
    }

    fn agents_are(&self, agents: &str, wanted: &str) {
        eventually(&format!("four agents of the network that are {wanted}"), Duration::from_secs(180), || {
            let seen = self.master().try_sh(agents);
            let all = seen.stdout.lines().count() == NAMES.len() && seen.stdout.lines().all(|l| l.contains(wanted));
            if seen.ok && all { Ok(()) } else { Err(seen.all()) }
        });
    }

    /// The first control plane last; a network of somebody else's stays, and is taken away by hand.
    fn reset(&mut self) {
        let command = "$KEDGE reset --force";
        self.machines[1].put("/etc/cni/net.d/99-mine.conflist", "{}");
        let said = self.run("reset", 1, command);
        assert!(said.contains("[reset] Removing this machine's member from etcd"), "{said}");
        self.run("reset", 1, "rm -rf /etc/cni/net.d; rm /etc/sysctl.d/90-kedge.conf");
        let workers: Vec<Output> = thread::scope(|scope| {
            let reset: Vec<_> = self.machines[2..]
                .iter()
                .map(|worker| scope.spawn(|| worker.try_sh("$KEDGE reset --force 2>&1")))
                .collect();
            reset.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        for (worker, output) in self.machines[2..].iter().zip(workers) {
            assert!(output.ok, "{}", output.all());
            self.said.keep("reset", worker, command, &output);
        }
        self.run("reset", 0, command);
    }

    fn traces(&self) -> Vec<String> {
        self.machines.iter().map(|machine| machine.sh(TRACES)).collect()
    }
}
