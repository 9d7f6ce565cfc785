//! `kedge upgrade` of a cluster of three machines, one of them the control plane, between two builds, while every machine
//! sends requests to a Service all the time, by its address, by its name and by its node's port: none may fail.
//!
//! One cluster for all checks: what is refused, a new version that does not start and is taken back, an upgrade that is
//! killed half way and finished, the workers. A further control plane costs too much time here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kedge_e2e::{BUSYBOX, Machine, eventually, names_only, other_build};

const OLD: &str = concat!("v1.36.0+kedge-", env!("CARGO_PKG_VERSION"));
const NEW: &str = "v1.36.0+kedge-0.1.999";
const PATIENCE: Duration = Duration::from_secs(120);
const CONFIGURATION: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 198.51.100.31}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
controlPlaneEndpoint: up-1:6443
---
";

/// What the operator says once for all commands, beside the patches that it names.
const UPGRADE: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: UpgradeConfiguration
apply: {patches: {directory: /root/patches}}
node: {patches: {directory: /root/patches}}
timeouts: {upgradeManifests: 4m0s}
";

#[test]
fn three_machines_are_upgraded_and_no_request_fails() {
    if !Path::new("/usr/bin/etcd").exists() {
        kedge_skip::skip("three_machines_are_upgraded_and_no_request_fails", "etcd is not installed");
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    cluster.application();
    let before = cluster.application_containers();
    cluster.nothing_is_done_too_early();
    cluster.plan();
    cluster.a_version_that_does_not_start_is_taken_back();
    cluster.the_first_control_plane();
    cluster.one_machine_at_a_time();
    cluster.the_other_machines();
    cluster.everything_is_new();
    cluster.no_request_failed();
    assert_eq!(cluster.application_containers(), before, "the application's containers were restarted");
}

struct Cluster {
    first: Machine,
    workers: [Machine; 2],
    new: PathBuf,
    _dir: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Option<Self> {
        let first = Machine::start("up-1", "198.51.100.31")?;
        let workers = [Machine::start("up-2", "198.51.100.32")?, Machine::start("up-3", "198.51.100.33")?];
        workers.iter().for_each(|worker| first.plug(worker));
        let dir = tempfile::Builder::new().prefix("kedge-e2e-").tempdir().expect("a directory can be made");
        first.put("/root/kubeadm.yaml", &format!("{CONFIGURATION}{}", Machine::calm_kubelet()));
        let new = std::thread::scope(|scope| {
            let new = scope.spawn(|| other_build(dir.path(), "0.1.999"));
            workers.iter().for_each(|worker| drop(scope.spawn(|| prepare(worker))));
            prepare(&first);
            first.put("/root/upgrade.yaml", UPGRADE);
            first.sh("$KEDGE init --fix --with-network --config /root/kubeadm.yaml 2>&1");
            new.join().expect("there is another build")
        });
        let told = first.sh("$KEDGE token create --print-join-command");
        let join =
            format!("$KEDGE {} --fix --ignore-preflight-errors=NumCPU", told.trim().trim_start_matches("kedge "));
        std::thread::scope(|scope| {
            workers.iter().for_each(|worker| drop(scope.spawn(|| worker.sh(&format!("{join} 2>&1")))));
        });
        first.sh("kubectl wait --for=condition=Ready node --all --timeout=120s");
        first.sh("kubectl taint nodes up-1 node-role.kubernetes.io/control-plane- 2>&1");
        Some(Self { first, workers, new, _dir: dir })
    }

    /// The demo's application behind a Service, with pods on every machine; and pods on every machine that ask it.
    fn application(&self) {
        let image = self.first.sh("kubectl get ds -n kube-system kube-proxy -o jsonpath='{..containers[0].image}'");
        assert_eq!(image, format!("localhost/kedge:{}", OLD.replace('+', "_")));
        self.first.put("/root/web.yaml", &web(&image));
        self.first.sh("kubectl apply -f /root/web.yaml && kubectl rollout status deployment/web --timeout=120s");
        let address = self.first.sh("kubectl get service web -o jsonpath='{.spec.clusterIP}'");
        self.first.put("/root/load.yaml", &load(&address));
        self.first.sh("kubectl rollout status -n kube-system deployment/coredns --timeout=120s");
        self.first.sh("kubectl apply -f /root/load.yaml && kubectl rollout status daemonset/load --timeout=120s");
        let dns = "kubectl rollout status -n kube-system daemonset/kube-proxy --timeout=120s && \
                   kubectl rollout status -n kube-system daemonset/kedge-network --timeout=120s";
        self.first.sh(dns);
        self.first.shows(
            "requests from everywhere",
            "kubectl logs -l app=load --prefix --tail=-1 | grep -c ' sent 30$'",
            "3",
        );
    }

    fn application_containers(&self) -> String {
        let ids = "{range .items[*]}{.metadata.name} {.status.containerStatuses[*].containerID}{\"\\n\"}{end}";
        self.first.sh(&format!("kubectl get pods -o jsonpath='{ids}' | sort"))
    }

    fn upgrade(&self, machine: &Machine, words: &str) -> kedge_e2e::Output {
        machine.try_sh(&format!("{} upgrade {words} 2>&1", self.new.display()))
    }

    fn upgraded(&self, machine: &Machine, words: &str, lines: &[&str]) -> String {
        let output = self.upgrade(machine, words);
        assert!(output.ok, "{}", output.all());
        has(&output.all(), lines);
        output.all()
    }

    fn nothing_is_done_too_early(&self) {
        let version = self.first.sh(&format!("{} version", self.new.display()));
        assert_eq!(version.trim(), "kedge 0.1.999 (Kubernetes v1.36.0)");
        let early = self.upgrade(&self.workers[0], "node");
        assert!(!early.ok, "{}", early.all());
        has(
            &early.all(),
            &[&format!("the cluster is at {OLD} and this kedge brings {NEW}: run `kedge upgrade apply`")],
        );
        let elsewhere = self.upgrade(&self.workers[0], "apply --yes");
        assert!(!elsewhere.ok && elsewhere.all().contains("this machine is no control plane"), "{}", elsewhere.all());
        let other = self.upgrade(&self.first, "apply v1.38.0 --yes");
        assert!(!other.ok, "{}", other.all());
        has(&other.all(), &["the version argument is invalid due to these fatal errors:", "is too high"]);
        let asked = self.first.try_sh(&format!("echo n | {} upgrade apply 2>&1", self.new.display()));
        assert!(!asked.ok && asked.all().contains("Are you sure you want to proceed? [y/N]: "), "{}", asked.all());
    }

    fn plan(&self) {
        let asked = self.first.sh("kubectl get endpoints -A 2>&1");
        assert!(asked.contains("Warning: v1 Endpoints is deprecated in v1.33+"), "{asked}");
        let text = self.upgraded(
            &self.first,
            "plan",
            &[
                &format!("[upgrade/versions] Cluster version: {OLD}"),
                &format!("[upgrade/versions] kedge version: {NEW}"),
                "COMPONENT   NODE      CURRENT",
                "Upgrade to the latest version in the v1.36 series:",
                &format!("\tkedge upgrade apply {NEW}"),
                "kubelet.config.k8s.io",
                "\tv1 endpoints\n",
            ],
        );
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        for (component, node) in
            [("kubelet", "up-3"), ("kube-apiserver", "up-1"), ("kubelet", "up-2"), ("kube-scheduler", "up-1")]
        {
            assert!(words.contains(&vec![component, node, OLD, NEW]), "{component} of {node} is not in\n{text}");
        }
        let json = self.first.sh(&format!("{} upgrade plan -o json 2>/dev/null", self.new.display()));
        let plan: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        assert_eq!(plan["kind"], "UpgradePlan");
        assert!(
            plan["deprecatedAPIs"].as_array().is_some_and(|all| all.iter().any(|api| api["resource"] == "endpoints"))
        );
        let diff = self.upgraded(
            &self.first,
            "diff --config /root/upgrade.yaml",
            &["--- /etc/kubernetes/manifests/kube-scheduler.yaml", "+++ new manifest", "+    patched: a"],
        );
        assert!(diff.contains(&format!("+    image: localhost/kedge:{}", NEW.replace('+', "_"))), "{diff}");
        let dry =
            self.upgraded(&self.first, "apply --dry-run", &["[upgrade/successful] Finished dryrunning successfully!"]);
        assert!(dry.contains("[dryrun] Would write file \"/etc/kubernetes/manifests/kube-apiserver.yaml\""), "{dry}");
    }

    fn configure_controller_manager(&self, to: &str) {
        let get = "kubectl get cm -n kube-system kubeadm-config -o yaml";
        let change = format!("sed 's/controllerManager: {{.*$/controllerManager: {to}/'");
        self.first.sh(&format!("{get} | {change} | kubectl replace -f -"));
        self.first.shows("the configuration", get, &format!("controllerManager: {to}"));
    }

    fn manifests(&self) -> String {
        self.first.sh("cat /etc/kubernetes/manifests/*.yaml")
    }

    fn a_version_that_does_not_start_is_taken_back(&self) {
        let before = self.manifests();
        let wrong = "{extraArgs: [{name: no-such-flag, value: \"1\"}]}";
        self.configure_controller_manager(wrong);
        let refused = self.upgrade(&self.first, "apply --yes");
        assert!(!refused.ok, "{}", refused.all());
        has(
            &refused.all(),
            &["[ERROR ExtraArgs]: kube-controller-manager of this version does not take its command line"],
        );
        assert_eq!(self.manifests(), before);
        let failed =
            self.upgrade(&self.first, "apply --yes --certificate-renewal=false --ignore-preflight-errors=ExtraArgs");
        assert!(!failed.ok, "{}", failed.all());
        has(
            &failed.all(),
            &[
                "[upgrade/staticpods] Component \"kube-apiserver\" upgraded successfully!",
                "[upgrade/staticpods] Component \"kube-controller-manager\" could not be upgraded: \
             kube-controller-manager-up-1 does not start: its container ended with exit code",
                "no-such-flag",
                "[upgrade/staticpods] Component \"kube-controller-manager\" was rolled back and is healthy",
                "[upgrade/staticpods] Component \"kube-apiserver\" was rolled back and is healthy",
                "couldn't upgrade control plane. kedge has tried to recover everything into the earlier state",
            ],
        );
        assert_eq!(self.manifests(), before);
        // Before anything else is judged, the API of the old version answers again.
        self.first.shows("the old API server", "kubectl get --raw /version", OLD);
        self.configure_controller_manager("{}");
    }

    fn the_first_control_plane(&self) {
        let log = "/root/upgrade.log";
        let command = format!(
            "setsid {} upgrade apply --yes --config /root/upgrade.yaml > {log} 2>&1 < /dev/null & echo $! > /root/upgrade.pid",
            self.new.display()
        );
        self.first.sh(&command);
        let line = "[upgrade/staticpods] Waiting for the kubelet to restart the component";
        self.first.shows("an upgrade on its way", &format!("cat {log}"), line);
        self.first.sh("kill -9 $(cat /root/upgrade.pid)");
        self.upgraded(&self.first, "apply --yes --config /root/upgrade.yaml", &[
            &format!("[upgrade/staticpods] An upgrade to {NEW} was interrupted"),
            "[upgrade/staticpods] Waiting for \"kube-apiserver\" to be healthy",
            "[upgrade/staticpods] Current and new manifests of etcd are equal, skipping upgrade",
            "[upgrade/staticpods] Current and new manifests of kube-apiserver are equal, skipping upgrade",
            "[upgrade/staticpods] Renewing scheduler.conf certificate",
            "[patches] Applied patch of type \"application/merge-patch+json\" to target \"kube-scheduler\"",
            "[upgrade/staticpods] Component \"kube-scheduler\" upgraded successfully!",
            "[upgrade/control-plane] The control plane instance for this node was successfully upgraded!",
            "[upload-config] Storing the configuration used in ConfigMap \"kubeadm-config\" in the \"kube-system\" Namespace",
            "[upgrade/kubelet-config] The kubelet configuration for this node was successfully upgraded!",
            &format!("[upgrade/kubelet] The kubelet of the node up-1 runs {NEW}"),
            "[addons] Applied essential addon: CoreDNS",
            "[addons] Applied essential addon: kube-proxy",
            "[addons] Applied essential addon: kedge-network",
            &format!("[upgrade] SUCCESS! A control plane node of your cluster was upgraded to \"{NEW}\"."),
        ]);
        self.what_was_patched();
    }

    fn what_was_patched(&self) {
        let scheduler =
            "kubectl get pod -n kube-system kube-scheduler-up-1 -o jsonpath='{.metadata.annotations.patched}'";
        assert_eq!(self.first.sh(scheduler), "a");
        let dns = "kubectl get deploy -n kube-system coredns -o jsonpath='{.metadata.annotations.patched}'";
        assert_eq!(self.first.sh(dns), "b");
        let pods = "kubectl get node up-1 -o jsonpath='{.status.allocatable.pods}'";
        self.first.shows("what the kubelet was patched to", pods, "99");
        // The patches are the machine's, the cluster is not told of them.
        let shared = self.first.sh("kubectl get cm -n kube-system kubelet-config -o yaml");
        assert!(!shared.contains("maxPods"), "{shared}");
        self.first.sh("diff -r /etc/kubernetes/manifests /var/lib/kedge/manifests");
    }

    fn one_machine_at_a_time(&self) {
        let record = |holder: &str| {
            format!(
                "kubectl patch cm -n kube-system kedge-upgrade --type merge -p \"{{\\\"data\\\":{{\\\"holder\\\":\\\"{holder}\\\",\
                 \\\"acquired\\\":\\\"$(date -u +%FT%TZ)\\\",\\\"renewed\\\":\\\"$(date -u +%FT%TZ)\\\"}}}}\""
            )
        };
        self.first.sh(&record("up-9"));
        let refused = self.upgrade(&self.workers[0], "node");
        assert!(!refused.ok && refused.all().contains("the node up-9 is being upgraded"), "{}", refused.all());
        self.first.sh(&record(""));
    }

    fn the_other_machines(&self) {
        for worker in &self.workers {
            // It has no image of the new version yet, and keeps its old agents until it has.
            let name = worker.name();
            let kept = self.first.sh(&format!(
                "kubectl get pods -n kube-system --field-selector spec.nodeName={name} -o jsonpath='{{..containers[0].image}}'"
            ));
            assert!(kept.contains(&OLD.replace('+', "_")), "{kept}");
        }
        // One phase by phase, the other as a whole; and that one as an older Kedge left it, which knew no balancer.
        let [first, second] = &self.workers;
        let runs = |worker: &Machine| format!("[upgrade/kubelet] The kubelet of the node {} runs {NEW}", worker.name());
        let unknown = self.upgrade(first, "node phase bootstrap-token");
        assert!(!unknown.ok && unknown.all().contains("unknown phase \"bootstrap-token\""), "{}", unknown.all());
        self.upgraded(first, "node phase preflight", &["Making the images of the new version"]);
        self.upgraded(first, "node phase kubelet-config", &[&runs(first)]);
        self.nothing_alarms();
        let flags = "/var/lib/kubelet/kubeadm-flags.env";
        second.sh(&format!("sed -i 's/ --api-balancer[^ \"]*//g' {flags}"));
        let lines = [
            "[upgrade/control-plane] Skipping phase. Not a control plane node.",
            "[upgrade/kubelet-config] Adding flags of the kubelet: --api-balancer --api-balancer-seed",
            &runs(second),
        ];
        std::thread::scope(|scope| {
            let upgrade = scope.spawn(|| self.upgraded(second, "node", &lines));
            // At every moment of it.
            while !upgrade.is_finished() {
                self.nothing_alarms();
            }
            upgrade.join().expect("it is upgraded");
        });
        let flags = second.sh(&format!("cat {flags}"));
        assert!(flags.contains("--api-balancer=127.0.0.1:6444 --api-balancer-seed=up-1:6443"), "{flags}");
    }

    /// One machine is new, another one becomes it, the third is old.
    fn nothing_alarms(&self) {
        names_only(&self.first.try_sh("$KEDGE doctor --output json"), "an upgrade", &[]);
    }

    fn everything_is_new(&self) {
        for agent in ["daemonset/kube-proxy", "daemonset/kedge-network", "deployment/coredns"] {
            self.first.sh(&format!("kubectl rollout status -n kube-system {agent} --timeout=120s"));
        }
        let version = "{range .items[*]}{.status.nodeInfo.kubeletVersion}{\"\\n\"}{end}";
        let kubelets = self.first.sh(&format!("kubectl get nodes -o jsonpath='{version}' | sort -u"));
        assert_eq!(kubelets.trim(), NEW);
        let images = "kubectl get pods -n kube-system -o jsonpath='{..containers[*].image}' | tr ' ' '\\n' | grep kedge | sort -u";
        let tag = format!("localhost/kedge:{}", NEW.replace('+', "_"));
        eventually("pods of the new version only", PATIENCE, || {
            let found = self.first.try_sh(images);
            if found.stdout.trim() == tag { Ok(()) } else { Err(found.all()) }
        });
        let again = self.upgraded(&self.first, "plan", &["API GROUP"]);
        assert!(!again.contains("COMPONENT"), "{again}");
    }

    fn no_request_failed(&self) {
        let logs = self.first.sh("kubectl logs -l app=load --tail=-1 --prefix");
        let failed: Vec<&str> = logs.lines().filter(|line| !line.contains(" sent ")).collect();
        assert!(failed.is_empty(), "requests failed:\n{}", failed.join("\n"));
        let sent = logs.lines().filter(|line| line.contains(" sent ")).count();
        println!("{} requests, none failed", sent * 30);
        assert!(sent > 40, "only {sent} times 30 requests were sent");
    }
}

fn prepare(machine: &Machine) {
    machine.sh("mkdir -p /root/patches");
    let annotations = |text: &str| format!("metadata: {{annotations: {{{text}}}}}\n");
    machine.put("/root/patches/kube-scheduler+merge.yaml", &annotations("patched: a"));
    machine.put("/root/patches/corednsdeployment0.yaml", &annotations("patched: b"));
    machine.put("/root/patches/kubeletconfiguration.yaml", "maxPods: 99\n");
    let hosts = "198.51.100.31 up-1\\n198.51.100.32 up-2\\n198.51.100.33 up-3\\n127.0.0.1 localhost\\n";
    machine.sh(&format!("printf '{hosts}' > /etc/hosts"));
    machine.load_busybox();
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

fn web(image: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 4
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: web}}}}}}
      containers:
      - name: web
        image: {image}
        command: [/usr/local/bin/kedge, demo-app]
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]}}
"
    )
}

fn load(address: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: load}}
spec:
  selector: {{matchLabels: {{app: load}}}}
  template:
    metadata: {{labels: {{app: load}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: load
        image: {BUSYBOX}
        env: [{{name: OWN, valueFrom: {{fieldRef: {{fieldPath: status.hostIP}}}}}}]
        command:
        - sh
        - -c
        - |
          n=0
          while :; do
            for host in {address} web.default.svc.cluster.local $OWN:30080; do
              said=$(curl -sS -f -m 15 -o /dev/null http://$host/ 2>&1) || echo \"$(cat /proc/uptime) $host: $said\"
            done
            n=$((n + 3))
            [ $((n % 30)) = 0 ] && echo \" sent $n\"
            sleep 0.05
          done
"
    )
}
