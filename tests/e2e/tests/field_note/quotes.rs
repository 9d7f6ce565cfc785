//! The lines that the note quotes, in its order, and the step of the test in which each is seen. Program names, addresses
//! and host names are this test's; versions are today's.

use crate::transcript::{Quote, other, same};

pub const QUOTES: &[Quote] = &[
    // 1.2: the first attempt.
    same("preflight", "[init] Using Kubernetes version: v1.36."),
    same("preflight", "[preflight] Running pre-flight checks"),
    same("preflight", "[WARNING FileExisting-tc]: tc not found in system path"),
    same("preflight", "[WARNING Hostname]: hostname \"kube-master-node1\" could not be reached"),
    same(
        "preflight",
        "[WARNING Hostname]: hostname \"kube-master-node1\": lookup kube-master-node1 on 198.51.100.10:53: no such host",
    ),
    same("preflight", "error execution phase preflight: [preflight] Some fatal errors occurred:"),
    // kubeadm has dropped this check; Kedge warns.
    other(
        "preflight",
        "[ERROR FileContent--proc-sys-net-bridge-bridge-nf-call-iptables]: \
         /proc/sys/net/bridge/bridge-nf-call-iptables does not exist",
        "[WARNING FileContent--proc-sys-net-bridge-bridge-nf-call-iptables]: \
         /proc/sys/net/bridge/bridge-nf-call-iptables does not exist",
    ),
    same(
        "preflight",
        "[ERROR FileContent--proc-sys-net-ipv4-ip_forward]: /proc/sys/net/ipv4/ip_forward contents are not set to 1",
    ),
    same(
        "preflight",
        "[preflight] If you know what you are doing, you can make a check non-fatal with \
         `--ignore-preflight-errors=...`",
    ),
    same("preflight", "To see the stack trace of this error execute with --v=5 or higher"),
    // 1.2: the second.
    same("init", "[bootstrap-token] Using token: *.*"),
    same("init", "[bootstrap-token] Configuring bootstrap tokens, cluster-info ConfigMap, RBAC Roles"),
    same("init", "[bootstrap-token] Configured RBAC rules to allow Node Bootstrap tokens to get nodes"),
    same(
        "init",
        "[bootstrap-token] Configured RBAC rules to allow Node Bootstrap tokens to post CSRs in order for nodes to get \
         long term certificate credentials",
    ),
    same(
        "init",
        "[bootstrap-token] Configured RBAC rules to allow the csrapprover controller automatically approve CSRs from a \
         Node Bootstrap Token",
    ),
    same(
        "init",
        "[bootstrap-token] Configured RBAC rules to allow certificate rotation for all node client certificates in the \
         cluster",
    ),
    same("init", "[bootstrap-token] Creating the \"cluster-info\" ConfigMap in the \"kube-public\" namespace"),
    same(
        "init",
        "[kubelet-finalize] Updating \"/etc/kubernetes/kubelet.conf\" to point to a rotatable kubelet client \
         certificate and key",
    ),
    same("init", "[addons] Applied essential addon: CoreDNS"),
    same("init", "[addons] Applied essential addon: kube-proxy"),
    same("init", "Your Kubernetes control-plane has initialized successfully!"),
    same("init", "To start using your cluster, you need to run the following as a regular user:"),
    same("init", "mkdir -p $HOME/.kube"),
    same("init", "sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config"),
    same("init", "sudo chown $(id -u):$(id -g) $HOME/.kube/config"),
    same("init", "Alternatively, if you are the root user, you can run:"),
    same("init", "export KUBECONFIG=/etc/kubernetes/admin.conf"),
    same("init", "You should now deploy a pod network to the cluster."),
    same("init", "Run \"kubectl apply -f [podnetwork].yaml\" with one of the options listed at:"),
    same("init", "https://kubernetes.io/docs/concepts/cluster-administration/addons/"),
    other(
        "init",
        "You can now join any number of the control-plane node running the following command on each as root:",
        "You can now join any number of control-plane nodes running the following command on each as root:",
    ),
    same("init", "kedge join nlb-kube-master.test:6443 --token *.* \\"),
    same("init", "--discovery-token-ca-cert-hash sha256:"),
    same("init", "--control-plane --certificate-key "),
    same("init", "Please note that the certificate-key gives access to cluster sensitive data, keep it secret!"),
    same("init", "As a safeguard, uploaded-certs will be deleted in two hours; If necessary, you can use"),
    same("init", "\"kedge init phase upload-certs --upload-certs\" to reload certs afterward."),
    same("init", "Then you can join any number of worker nodes by running the following on each as root:"),
    same("no network", "NAME STATUS ROLES AGE VERSION"),
    same("no network", "kube-master-node1 NotReady control-plane * v1.36."),
    same("no network", "kube-system coredns-* 0/1 Pending 0"),
    same("no network", "kube-system etcd-kube-master-node1 1/1 Running"),
    same("no network", "kube-system kube-apiserver-kube-master-node1 1/1 Running"),
    same("no network", "kube-system kube-controller-manager-kube-master-node1 1/1 Running"),
    same("no network", "kube-system kube-proxy-* 1/1 Running"),
    same("no network", "kube-system kube-scheduler-kube-master-node1 1/1 Running"),
    same("no network", "Type Status LastHeartbeatTime LastTransitionTime Reason Message"),
    same("no network", "MemoryPressure False * KubeletHasSufficientMemory kubelet has sufficient memory available"),
    same("no network", "DiskPressure False * KubeletHasNoDiskPressure kubelet has no disk pressure"),
    same("no network", "PIDPressure False * KubeletHasSufficientPID kubelet has sufficient PID available"),
    same(
        "no network",
        "Ready False * KubeletNotReady container runtime network not ready: NetworkReady=false \
         reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized",
    ),
    // The scheduler no longer says which taint.
    other(
        "no network",
        "Warning FailedScheduling * default-scheduler 0/1 nodes are available: 1 node(s) had untolerated taint \
         {node.kubernetes.io/not-ready: }. preemption: 0/1 nodes are available: 1 Preemption is not helpful for \
         scheduling.",
        "Warning FailedScheduling * default-scheduler 0/1 nodes are available: 1 node(s) had untolerated taint(s). \
         *preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
    ),
    // 1.3: the network, and a Deployment of its that tolerates less.
    same("network", "kube-master-node1 Ready control-plane * v1.36."),
    same("network", "kube-system kube-controllers-* 0/1 Pending 0"),
    other("network", "kube-system calico-node-* 1/1 Running", "kube-system kedge-network-* 1/1 Running"),
    same("network", "kube-system coredns-* 1/1 Running"),
    same("network", "PodScheduled False"),
    same("network", "kube-api-access-*:"),
    same("network", "Type: Projected (a volume that contains injected data from multiple sources)"),
    same("network", "TokenExpirationSeconds: 3607"),
    same("network", "ConfigMapName: kube-root-ca.crt"),
    same("network", "ConfigMapOptional: <nil>"),
    same("network", "DownwardAPI: true"),
    same("network", "QoS Class: BestEffort"),
    same("network", "Node-Selectors: kubernetes.io/os=linux"),
    same("network", "Tolerations: CriticalAddonsOnly op=Exists"),
    same("network", "node-role.kubernetes.io/master:NoSchedule"),
    same("network", "node.kubernetes.io/not-ready:NoExecute op=Exists for 300s"),
    same("network", "node.kubernetes.io/unreachable:NoExecute op=Exists for 300s"),
    other(
        "network",
        "Warning FailedScheduling * default-scheduler 0/1 nodes are available: 1 node(s) had untolerated taint \
         {node-role.kubernetes.io/control-plane: }. preemption: 0/1 nodes are available: 1 Preemption is not helpful \
         for scheduling.",
        "Warning FailedScheduling * default-scheduler 0/1 nodes are available: 1 node(s) had untolerated taint(s). \
         *preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
    ),
    same(
        "taints",
        "Warning FailedScheduling * default-scheduler 0/1 nodes are available: 1 node(s) had untolerated taint",
    ),
    same(
        "taints",
        "Normal Scheduled * default-scheduler Successfully assigned kube-system/kube-controllers-* to kube-master-node1",
    ),
    same("taints", "Normal Pulling * kubelet Pulling image \"198.51.100.10:5000/kube-controllers:v3.23.2\""),
    same(
        "taints",
        "Normal Pulled * kubelet Successfully pulled image \"198.51.100.10:5000/kube-controllers:v3.23.2\" in ",
    ),
    other(
        "taints",
        "Normal Created * kubelet Created container kube-controllers",
        "Normal Created * kubelet Container created",
    ),
    other(
        "taints",
        "Normal Started * kubelet Started container kube-controllers",
        "Normal Started * kubelet Container started",
    ),
    same("taints", "kube-system kube-controllers-* 1/1 Running 0"),
    // 1.4: a worker.
    same("worker", "[preflight] Running pre-flight checks"),
    same("worker", "[WARNING FileExisting-tc]: tc not found in system path"),
    other(
        "worker",
        "[preflight] Reading configuration from the cluster...",
        "[preflight] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...",
    ),
    other(
        "worker",
        "[preflight] FYI: You can look at this config file with 'kubectl -n kube-system get cm kubeadm-config -o yaml'",
        "[preflight] Use 'kedge init phase upload-config kubeadm --config your-config-file' to re-upload it.",
    ),
    same("worker", "[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/config.yaml\""),
    same(
        "worker",
        "[kubelet-start] Writing kubelet environment file with flags to file \"/var/lib/kubelet/kubeadm-flags.env\"",
    ),
    same("worker", "[kubelet-start] Starting the kubelet"),
    other(
        "worker",
        "[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap...",
        "[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap",
    ),
    same("worker", "This node has joined the cluster:"),
    same("worker", "* Certificate signing request was sent to apiserver and a response was received."),
    same("worker", "* The Kubelet was informed of the new secure connection details."),
    same("worker", "Run 'kubectl get nodes' on the control-plane to see this node join the cluster."),
    same("worker", "kube-master-node1 Ready control-plane * v1.36."),
    same("worker", "kube-worker-node1 Ready <none> * v1.36."),
    same("roles", "kube-worker-node1 Ready worker * v1.36."),
    same("roles", "kube-worker-node2 Ready worker * v1.36."),
    // 1.5: a second control plane.
    same(
        "expired",
        "[download-certs] Downloading the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace",
    ),
    same(
        "expired",
        "error execution phase control-plane-prepare/download-certs: error downloading certs: error downloading the \
         secret: Secret \"kubeadm-certs\" was not found in the \"kube-system\" Namespace. This Secret might have \
         expired. Please, run `kedge init phase upload-certs --upload-certs` on a control plane to generate a new one",
    ),
    same(
        "upload",
        "[upload-certs] Storing the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace",
    ),
    same("upload", "[upload-certs] Using certificate key:"),
    same("control plane", "This node has joined the cluster and a new control plane instance was created:"),
    same("control plane", "* Certificate signing request was sent to apiserver and approval was received."),
    same("control plane", "* The Kubelet was informed of the new secure connection details."),
    same("control plane", "* Control plane label and taint were applied to the new node."),
    same("control plane", "* The Kubernetes control plane instances scaled up."),
    same("control plane", "* A new etcd member was added to the local/stacked etcd cluster."),
    same(
        "control plane",
        "To start administering your cluster from this node, you need to run the following as a regular user:",
    ),
    same("control plane", "mkdir -p $HOME/.kube"),
    same("control plane", "sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config"),
    same("control plane", "sudo chown $(id -u):$(id -g) $HOME/.kube/config"),
    same("control plane", "Run 'kubectl get nodes' to see this node join the cluster."),
    same("control plane", "kube-master-node1 Ready control-plane * v1.36."),
    same("control plane", "kube-master-node2 Ready control-plane * v1.36."),
    same("control plane", "kube-worker-node1 Ready worker * v1.36."),
    same("control plane", "kube-worker-node2 Ready worker * v1.36."),
    // 2.1: BGP.
    other("blocked", "kube-system calico-node-* 0/1 Running", "kube-system kedge-network-* 0/1 Running"),
    same("blocked", "kube-system kube-controllers-* 1/1 Running"),
    same("blocked", "kube-system coredns-* 1/1 Running"),
    same("blocked", "kube-system etcd-kube-master-node2 1/1 Running"),
    same("blocked", "kube-system kube-apiserver-kube-master-node2 1/1 Running"),
    same("blocked", "kube-system kube-controller-manager-kube-master-node2 1/1 Running"),
    same("blocked", "kube-system kube-proxy-* 1/1 Running"),
    same("blocked", "kube-system kube-scheduler-kube-master-node2 1/1 Running"),
    same("blocked", "Warning Unhealthy * kubelet Readiness probe failed: "),
    other(
        "blocked",
        "calico/node is not ready: BIRD is not ready: BGP not established with 10.20.1.232,10.20.1.67,10.20.2.10",
        "kedge-network is not ready: BGP not established with 198.51.100.11,198.51.100.12,198.51.100.13",
    ),
    same("blocked", "192.168.*.0/24 dev "),
    other("opened", "kube-system calico-node-* 1/1 Running", "kube-system kedge-network-* 1/1 Running"),
    other(
        "opened",
        "192.168.11.0 10.20.2.22 255.255.255.192 UG 0 0 0 tunl0",
        "192.168.*.0/24 via 198.51.100.14 dev uplink",
    ),
    other(
        "opened",
        "192.168.103.128 10.20.1.67 255.255.255.192 UG 0 0 0 tunl0",
        "192.168.*.0/24 via 198.51.100.13 dev uplink",
    ),
    other(
        "opened",
        "192.168.238.192 10.20.2.10 255.255.255.192 UG 0 0 0 tunl0",
        "192.168.*.0/24 via 198.51.100.12 dev uplink",
    ),
    // 2.2: the end.
    same("reset", "The reset process does not clean CNI configuration. To do so, you must remove /etc/cni/net.d"),
    same("reset", "The reset process does not reset or clean up iptables rules or IPVS tables."),
    same("reset", "If you wish to reset iptables, you must do so manually by using the \"iptables\" command."),
    same("reset", "If your cluster was setup to utilize IPVS, run ipvsadm --clear (or similar)"),
    same("reset", "to reset your system's IPVS tables."),
    same("reset", "The reset process does not clean your kubeconfig files and you must remove them manually."),
    same("reset", "Please, check the contents of the $HOME/.kube/config file."),
];
