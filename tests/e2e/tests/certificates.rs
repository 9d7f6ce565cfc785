//! Certificates over the years: they are renewed, their authority is replaced, and they end while everything is off. What
//! runs goes on, and what was off comes back.
//!
//! One control plane and one worker for all checks, in an order in which each leaves the cluster whole.

use std::path::Path;
use std::time::Duration;

use kedge_e2e::{BUSYBOX, Machine, Output, dynamic_kedge_binary, eventually};

const FIRST: (&str, &str) = ("certs-1", "198.51.100.21");
const WORKER: (&str, &str) = ("certs-2", "198.51.100.22");
const CONFIGURATION: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 198.51.100.21}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
controlPlaneEndpoint: certs-1:6443
---
";
const PATIENCE: Duration = Duration::from_secs(180);

/// A pod that asks the API server again and again over new connections, and says what it got.
const CLIENT: &str = "apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: certs-2
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: IMAGE
    command:
    - sh
    - -c
    - |
      cd /var/run/secrets/kubernetes.io/serviceaccount
      while true; do
        curl -s -o /dev/null -m 10 -w '%{http_code} %{errormsg}\\n' --cacert ca.crt -H \"Authorization: Bearer $(cat token)\" \
          https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api
        sleep 0.3
      done
";

struct Pair {
    first: Machine,
    worker: Machine,
}

#[test]
fn what_runs_goes_on_and_what_was_off_comes_back() {
    if !Path::new("/usr/bin/etcd").exists() {
        kedge_skip::skip("what_runs_goes_on_and_what_was_off_comes_back", "etcd is not installed");
        return;
    }
    let Some(first) = Machine::start(FIRST.0, FIRST.1) else { return };
    let Some(worker) = Machine::start(WORKER.0, WORKER.1) else { return };
    let pair = Pair { first, worker };
    pair.start();
    let before = pair.running();
    renewed_certificates_are_taken_up(&pair);
    the_authority_is_replaced(&pair);
    assert_eq!(pair.running(), before, "something was started anew");
    after_a_restart_everybody_connects_again(&pair);
    a_cluster_that_was_off_for_too_long_comes_back(&pair);
}

impl Pair {
    fn start(&self) {
        let Self { first, worker } = self;
        first.plug(worker);
        for each in [first, worker] {
            each.sh("printf '198.51.100.21 certs-1\n198.51.100.22 certs-2\n127.0.0.1 localhost\n' > /etc/hosts");
            each.load_busybox();
        }
        first.put("/root/kubeadm.yaml", &format!("{CONFIGURATION}{}", Machine::calm_kubelet()));
        first.sh("$KEDGE init --fix --config /root/kubeadm.yaml --ignore-preflight-errors=NumCPU 2>&1");
        first.sh("$KEDGE init phase addon network");
        let told = first.sh("$KEDGE token create --print-join-command");
        worker.sh(&format!(
            "$KEDGE {} --fix --ignore-preflight-errors=NumCPU 2>&1",
            told.trim().trim_start_matches("kedge ")
        ));
        first.shows("two nodes", "kubectl get nodes -o name", "node/certs-2");
        first.sh("kubectl wait --for=condition=Ready node --all --timeout=180s");
        first.sh("kubectl rollout status -n kube-system daemonset/kube-proxy --timeout=120s");
        first.sh("kubectl rollout status -n kube-system daemonset/kedge-network --timeout=120s");
        first.sh("kubectl rollout status -n kube-system deployment/coredns --timeout=120s");
        first.put("/root/client.yaml", &CLIENT.replace("IMAGE", BUSYBOX));
        first.sh("kubectl apply -f /root/client.yaml && kubectl wait --for=condition=Ready pod/client --timeout=120s");
        self.client_goes_on();
    }

    /// Containers and kubelets, by names that change where they are started anew.
    fn running(&self) -> String {
        let script = "ctr -n k8s.io containers ls -q | sort; pgrep -f '[k]edge kubelet ' | sort";
        [&self.first, &self.worker].map(|machine| machine.sh(script)).concat()
    }

    /// The pod gets answers over connections that are made from now on, and has never got anything else.
    fn client_goes_on(&self) {
        let log = || self.first.sh("kubectl logs client");
        let seen = log().lines().count();
        eventually("further answers for the pod", PATIENCE, || {
            let text = log();
            if text.lines().count() > seen + 3 { Ok(()) } else { Err(text) }
        });
        let text = log();
        let wrong: Vec<&str> = text.lines().filter(|line| !line.starts_with("200")).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Waits until `kedge certs rotate-ca status` has a text for each node.
    fn status_shows(&self, text: &str) {
        eventually(text, PATIENCE, || {
            let output = self.first.try_sh("$KEDGE certs rotate-ca status 2>&1");
            let has = |name: &str| output.all().lines().any(|line| line.contains(name) && line.contains(text));
            if has("node/certs-1:") && has("node/certs-2:") { Ok(()) } else { Err(output.all()) }
        });
    }

    fn certificates_in_the_pod(&self, count: &str) {
        // A pod that changes has its volumes looked at now, and not within a minute.
        let script = "kubectl annotate --overwrite pod client looked=$(date +%s%N) > /dev/null; \
            kubectl exec client -- grep -c BEGIN /var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
        eventually("the bundle in the pod", PATIENCE, || {
            let output = self.first.try_sh(script);
            if output.stdout.trim() == count { Ok(()) } else { Err(output.all()) }
        });
    }
}

/// The certificate that a server shows.
fn shown(machine: &Machine, address: &str) -> String {
    machine.sh(&format!(
        "openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -serial -subject"
    ))
}

fn renewed_certificates_are_taken_up(pair: &Pair) {
    let first = &pair.first;
    let in_file = || first.sh("openssl x509 -noout -serial -subject -in /etc/kubernetes/pki/apiserver.crt");
    let before = in_file();
    assert_eq!(shown(first, "127.0.0.1:6443"), before);
    let said = first.sh("$KEDGE certs renew all");
    for line in [
        "certificate for serving the Kubernetes API renewed",
        "certificate the apiserver uses to access etcd renewed",
        "Done renewing certificates. Running components take them up by themselves",
    ] {
        assert!(said.contains(line), "{line:?} is not in\n{said}");
    }
    assert_ne!(in_file(), before);
    eventually("the API server with its new certificate", PATIENCE, || match shown(first, "127.0.0.1:6443") {
        now if now == in_file() => Ok(()),
        now => Err(now),
    });
    // A file that a static pod mounts alone stays the same file.
    for (component, file) in [("kube-scheduler", "scheduler.conf"), ("kube-controller", "controller-manager.conf")] {
        let inside = format!("cat /proc/$(pgrep -x {component})/root/etc/kubernetes/{file}");
        assert_eq!(first.sh(&inside), first.sh(&format!("cat /etc/kubernetes/{file}")), "{component}");
    }
    pair.client_goes_on();
}

fn the_authority_is_replaced(pair: &Pair) {
    let first = &pair.first;
    let step = |step: &str| first.try_sh(&format!("$KEDGE certs rotate-ca {step} 2>&1"));
    let told =
        |output: &Output, text: &str| assert!(output.all().contains(text), "{text:?} is not in\n{}", output.all());
    let early = step("switch");
    told(&early, "no rotation is under way: `kedge certs rotate-ca stage` begins one");
    let authority = "openssl x509 -noout -fingerprint -in /etc/kubernetes/pki/ca.crt";
    let old = first.sh(authority);
    // Somebody changes their mind.
    let staged = step("stage");
    assert!(staged.ok, "{}", staged.all());
    let aborted = step("abort");
    assert!(aborted.ok, "{}", aborted.all());
    told(&step("abort"), "no rotation is under way");
    assert_eq!(first.sh(authority), old);
    first.shows("one authority", "grep -c BEGIN /etc/kubernetes/pki/ca.crt", "1");

    let staged = step("stage");
    assert!(staged.ok, "{}", staged.all());
    told(&staged, "[rotate-ca] Updating the ConfigMap \"cluster-info\" in the \"kube-public\" Namespace");
    pair.status_shows("trusts 2 of 2");
    pair.certificates_in_the_pod("2");
    pair.client_goes_on();

    let switched = step("switch");
    assert!(switched.ok, "{}", switched.all());
    told(&switched, "certificate for serving the Kubernetes API renewed");
    pair.status_shows("shows a certificate of the one that signs");
    first.sh("kubectl get nodes");
    pair.client_goes_on();

    let finished = step("finish");
    assert!(finished.ok, "{}", finished.all());
    told(&finished, "The old authority is trusted no more");
    pair.status_shows("trusts 1 of 1");
    pair.certificates_in_the_pod("1");
    pair.client_goes_on();
    for machine in [&pair.first, &pair.worker] {
        assert_ne!(machine.sh(authority), old);
        let files = machine.sh("ls /etc/kubernetes/pki");
        assert!(!files.contains("ca-next") && !files.contains("ca-previous"), "{files}");
    }
}

/// What had connections from before makes new ones, and knows nobody but the new authority.
fn after_a_restart_everybody_connects_again(pair: &Pair) {
    let first = &pair.first;
    first.sh("kill $(pgrep -x kube-apiserver)");
    first.shows("the API server", "kubectl get --raw /readyz", "ok");
    first.sh("kubectl create deployment later --image=localhost/busybox:test -- sleep 36000");
    first.shows(
        "controllers, scheduler and kubelets at work",
        "kubectl rollout status deployment/later --timeout=60s",
        "successfully rolled out",
    );
    first.sh("kubectl delete deployment later --wait=false");
}

fn a_cluster_that_was_off_for_too_long_comes_back(pair: &Pair) {
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    let Some(binary) = dynamic_kedge_binary().filter(|_| Path::new(&library).exists()) else {
        kedge_skip::skip(
            "a_cluster_that_was_off_for_too_long_comes_back",
            "there is no libfaketime, or no kedge for it",
        );
        return;
    };
    let Pair { first, worker } = pair;
    for machine in [first, worker] {
        machine.sh("kill $(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' /run/kedge/kubelet.json)");
        machine.shows("the end of the kubelet", "pgrep -f '[k]edge kubelet' || echo none", "none");
        machine.sh("for task in $(ctr -n k8s.io tasks ls -q); do ctr -n k8s.io tasks kill -s KILL $task; done");
    }
    // As if all of this had been made four hundred days ago.
    let then = format!("LD_PRELOAD={library} FAKETIME=-400d {}", binary.display());
    first.sh(&format!("{then} certs renew all"));
    for (machine, name) in [(first, FIRST.0), (worker, WORKER.0)] {
        let kubeconfig = format!("{then} kubeconfig user --client-name system:node:{name} --org system:nodes");
        machine.put("/etc/kubernetes/kubelet.conf", &first.sh(&kubeconfig));
        machine.sh("rm -f /var/lib/kubelet/pki/kubelet-client-*");
    }
    let known = first.sh("$KEDGE certs check-expiration");
    assert!(known.contains("<invalid>") || known.contains("ago"), "{known}");
    assert!(known.contains("run `kedge certs renew all` here"), "{known}");
    let start = "setsid --fork $KEDGE kubelet-keeper >> /var/log/kedge-kubelet.log 2>&1 < /dev/null";
    first.sh(start);
    first.shows("the control plane by itself", "kubectl get --raw /readyz", "ok");
    first.sh("kubectl wait --for=condition=Ready node/certs-1 --timeout=180s");
    let events = "kubectl get events -A --field-selector reason=CertificateRenewed";
    first.shows("an event about the renewal", events, "Renewed apiserver, which is good until");
    // Whoever has neither a certificate nor the authority says what to do.
    worker.sh(start);
    let said = eventually("the word of the kubelet", PATIENCE, || {
        let log = worker.try_sh("cat /var/log/kedge-kubelet.log").all();
        let found = log.lines().rev().find_map(|line| line.split_once("run `kedge join ")?.1.split_once('`'));
        found.map(|(command, _)| command.to_owned()).ok_or(log)
    });
    let told = worker.sh("$KEDGE certs check-expiration");
    assert!(told.contains(&format!("run `kedge join {said}")), "{told}");
    let found = worker.try_sh("$KEDGE doctor node --output json 2>/dev/null").stdout;
    assert!(found.contains(&format!("kedge join {said}")), "the doctor does not name the command:\n{found}");
    let command = said.split_once("--token").expect("it ends with a token").0;
    let token = first.sh("$KEDGE token create");
    let joined = worker.sh(&format!("$KEDGE join {command} --token {} 2>&1", token.trim()));
    assert!(joined.contains("This node has another certificate:"), "{joined}");
    first.sh("kubectl wait --for=condition=Ready node/certs-2 --timeout=180s");
    first.sh("kubectl wait --for=condition=Ready pod/client --timeout=120s");
}
