//! What must be true of a cluster before an upgrade changes anything: kubeadm's health checks under its names, and two that
//! it lacks.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Node;
use kedge_client::Client;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, PropagationPolicy};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::host_facts::ControlPlaneFacts;
use crate::checks::CheckResult;
use crate::cluster_configuration::ClusterConfiguration;
use crate::etcd_members::EtcdMembers;
use crate::host::HostLayout;
use crate::init::PhaseError;
use crate::manifests::CONTROL_PLANE;

const JOB_PREFIX: &str = "upgrade-health-check";
const JOB_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
pub(super) const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";

/// Tells whether a component of this binary takes a command line: the flags of it that have no effect, or why not.
pub type CommandCheck = fn(component: &str, command: &[String]) -> Result<Vec<String>, String>;

/// What is looked at.
pub(super) struct Health<'a> {
    pub(super) client: &'a Client,
    pub(super) layout: &'a HostLayout,
    pub(super) node_name: &'a str,
    pub(super) own: &'a ControlPlaneFacts,
    pub(super) dry_run: bool,
}

impl Health<'_> {
    /// All checks of a control plane and its cluster.
    pub(super) async fn check(&self) -> Vec<CheckResult> {
        let mut results = vec![self.api_server().await];
        // Nothing else can be asked without it.
        if results.iter().any(|result| !result.errors.is_empty()) {
            return results;
        }
        results.push(self.nodes_ready().await);
        results.push(self.manifests());
        results.push(self.etcd().await);
        if !self.dry_run {
            results.push(self.create_job().await);
        }
        results
    }

    async fn api_server(&self) -> CheckResult {
        let result = CheckResult::new("APIServerHealth");
        let request = match http_get("/readyz") {
            Ok(request) => request,
            Err(error) => return result.error(error),
        };
        match self.client.request_text(request).await {
            Ok(_) => result,
            Err(error) => result.error(format!("the API server does not say that it is ready: {error}")),
        }
    }

    async fn nodes_ready(&self) -> CheckResult {
        let result = CheckResult::new("ControlPlaneNodesReady");
        let selector = ListParams::default().labels(CONTROL_PLANE_LABEL);
        match Api::<Node>::all(self.client.clone()).list(&selector).await {
            Err(error) => result.error(format!("could not list nodes labeled with {CONTROL_PLANE_LABEL:?}: {error}")),
            Ok(nodes) => match not_ready(&nodes.items) {
                names if names.is_empty() => result,
                names => {
                    result.error(format!("there are NotReady control-planes in the cluster: [{}]", names.join(" ")))
                }
            },
        }
    }

    fn manifests(&self) -> CheckResult {
        let result = CheckResult::new("StaticPodManifest");
        let paths = CONTROL_PLANE.into_iter().map(|component| self.layout.manifest(component));
        let missing: Vec<String> = paths.filter(|path| !path.exists()).map(|path| path.display().to_string()).collect();
        match missing.is_empty() {
            true => result,
            false => result.error(format!("manifest files not found: [{}]", missing.join(" "))),
        }
    }

    async fn etcd(&self) -> CheckResult {
        let mut result = CheckResult::new("EtcdMembersHealthy");
        if !self.own.has_etcd {
            return result;
        }
        let address = std::net::SocketAddr::new(self.own.local.advertise_address, 2379);
        let pki = self.layout.pki();
        let members = async { EtcdMembers::at(address, &pki)?.list().await }.await;
        let members = match members {
            Ok(members) => members,
            Err(error) => return result.error(error.to_string()),
        };
        for known in members {
            let name = known.member.name;
            let status = match known.client {
                None => Err("it has not started".to_owned()),
                Some(client) => {
                    async { EtcdMembers::at(client, &pki)?.status().await }.await.map_err(|error| error.to_string())
                }
            };
            if let Err(why) = status {
                result = result.error(format!("the etcd member {name} is not healthy: {why}"));
            }
        }
        result
    }

    /// Whether the cluster can take work: a Job on this node that ends well.
    async fn create_job(&self) -> CheckResult {
        let result = CheckResult::new("CreateJob");
        match self.run_job().await {
            Ok(()) => result,
            Err(why) => result.error(why),
        }
    }

    async fn run_job(&self) -> Result<(), String> {
        let manifest = super::host_facts::read_manifest(&self.layout.manifest("kube-apiserver"));
        let manifest = manifest.map_err(|error| error.to_string())?.unwrap_or_default();
        let image = manifest["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), "kube-system");
        let name = format!("{JOB_PREFIX}-{}", Timestamp::now().as_millisecond());
        let job: Job = serde_json::from_value(job(&name, self.node_name, &image)).map_err(|error| error.to_string())?;
        let shown =
            |what: &str, error: kube::Error| format!("{what} Job {name:?} in the namespace \"kube-system\": {error}");
        jobs.create(&PostParams::default(), &job).await.map_err(|error| shown("could not create", error))?;
        let deadline = Instant::now() + JOB_PATIENCE;
        let outcome = loop {
            let seen = jobs.get(&name).await;
            let conditions =
                seen.as_ref().ok().and_then(|job| job.status.as_ref()?.conditions.clone()).unwrap_or_default();
            if conditions.iter().any(|condition| condition.type_ == "Complete" && condition.status == "True") {
                break Ok(());
            }
            if Instant::now() > deadline {
                let last = seen.map_or_else(|error| error.to_string(), |_| "no condition of type Complete".to_owned());
                let seconds = JOB_PATIENCE.as_secs();
                break Err(format!(
                    "Job {name:?} in the namespace \"kube-system\" did not complete in {seconds} s: {last}"
                ));
            }
            tokio::time::sleep(POLL).await;
        };
        let params =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        if let Err(error) = jobs.delete(&name, &params).await {
            // It ends by itself, too.
            tracing::debug!(%error, name, "the job of the health check is not deleted");
        }
        outcome
    }
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>, String> {
    http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())
}

fn not_ready(nodes: &[Node]) -> Vec<String> {
    let is_ready = |node: &&Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    nodes.iter().filter(|node| !is_ready(node)).filter_map(|node| node.metadata.name.clone()).collect()
}

/// With the image that the node runs its control plane from, so that nothing is pulled.
fn job(name: &str, node: &str, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": JOB_PATIENCE.as_secs() + 5,
            "activeDeadlineSeconds": JOB_PATIENCE.as_secs() + 5,
            "template": {"spec": {
                "restartPolicy": "Never",
                "nodeSelector": {"kubernetes.io/hostname": node},
                "securityContext": {"runAsUser": 999, "runAsGroup": 999, "runAsNonRoot": true},
                "tolerations": [{"key": CONTROL_PLANE_LABEL, "effect": "NoSchedule"}],
                "containers": [{"name": JOB_PREFIX, "image": image, "imagePullPolicy": "IfNotPresent",
                    "command": ["/usr/local/bin/kedge", "version"]}],
            }},
        },
    })
}

/// A component's manifest.
type Manifest = (&'static str, Value);

fn command(pod: &Value) -> Vec<String> {
    let words = pod["spec"]["containers"][0]["command"].as_array().into_iter().flatten();
    words.filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// Whether this binary's components take the command lines that they would get.
pub(super) fn check_commands(manifests: &[Manifest], takes: CommandCheck) -> CheckResult {
    let mut result = CheckResult::new("ExtraArgs");
    for (component, pod) in manifests.iter().filter(|(component, _)| *component != "etcd") {
        if let Err(why) = takes(component, &command(pod)) {
            result = result.error(format!(
                "{component} of this version does not take its command line; change extraArgs in the ConfigMap \
                 kubeadm-config: {why}"
            ));
        }
    }
    result
}

/// Flags that the cluster's own configuration asks for and that do nothing in this version.
pub(super) fn useless_flags(
    cluster: &ClusterConfiguration,
    manifests: &[Manifest],
    takes: CommandCheck,
) -> Vec<String> {
    let mut found = Vec::new();
    for (component, pod) in manifests {
        let configured = match *component {
            "kube-apiserver" => &cluster.api_server,
            "kube-controller-manager" => &cluster.controller_manager,
            "kube-scheduler" => &cluster.scheduler,
            _ => continue,
        };
        let ignored = takes(component, &command(pod)).unwrap_or_default();
        let flags = configured.extra_args.iter().map(|argument| format!("--{}", argument.name));
        found.extend(flags.filter(|flag| ignored.contains(flag)).map(|flag| format!("{component} {flag}")));
    }
    found
}

/// Whether this process may do all of it.
pub(super) fn privileged() -> CheckResult {
    let result = CheckResult::new("IsPrivilegedUser");
    match nix::unistd::geteuid().is_root() {
        true => result,
        false => result.error("user is not running as root"),
    }
}

/// An error where checks failed that nobody ignores.
pub(super) fn judge(results: Vec<CheckResult>, ignored: &[String], say: crate::Say<'_>) -> Result<(), PhaseError> {
    Ok(crate::checks::judge(results, ignored, say)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_configuration::Argument;

    fn takes(component: &str, command: &[String]) -> Result<Vec<String>, String> {
        assert_eq!(command[0], component);
        match command.iter().find(|word| word.starts_with("--no-such")) {
            Some(word) => Err(format!("unexpected argument {word}")),
            None => {
                let useless = command.iter().filter(|word| word.starts_with("--profiling"));
                Ok(useless.map(|_| "--profiling".to_owned()).collect())
            }
        }
    }

    #[test]
    fn command_lines_are_tried_before_they_are_needed() {
        let of = |name: &str, flag: &str| json!({"spec": {"containers": [{"command": [name, flag]}]}});
        let pod = |flag: &str| of("kube-scheduler", flag);
        assert!(check_commands(&[("kube-scheduler", pod("--v=1"))], takes).errors.is_empty());
        let refused = check_commands(&[("etcd", pod("--no-such=1")), ("kube-scheduler", pod("--no-such=1"))], takes);
        assert_eq!(refused.errors.len(), 1);
        assert!(refused.errors[0].contains("unexpected argument --no-such=1"), "{refused:?}");
        let mut cluster = ClusterConfiguration::default();
        let argument = |name: &str| Argument { name: name.to_owned(), value: "true".to_owned() };
        cluster.scheduler.extra_args = vec![argument("profiling"), argument("v")];
        let manifests =
            [("kube-apiserver", of("kube-apiserver", "--profiling")), ("kube-scheduler", pod("--profiling=1"))];
        assert_eq!(useless_flags(&cluster, &manifests, takes), ["kube-scheduler --profiling"]);
    }

    #[test]
    fn nodes_without_a_word_are_not_ready() {
        let node = |name: &str, conditions: Value| -> Node {
            serde_json::from_value(json!({"metadata": {"name": name}, "status": {"conditions": conditions}})).unwrap()
        };
        let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
        let nodes = [node("a", ready("True")), node("b", ready("Unknown")), node("c", json!([]))];
        assert_eq!(not_ready(&nodes), ["b", "c"]);
    }
}
