//! Services with real packets on one node: what the conformance tests of `test/e2e/network` ask of them, and what those do
//! not ask. One cluster carries every check; the files below are groups of them.
//!
//! Not about the rules' form: that is the proxy's own tests'. Invariant: a check removes nothing that another one uses.

#[path = "services/addresses.rs"]
mod addresses;
#[path = "services/choices.rs"]
mod choices;
#[path = "services/endpoints.rs"]
mod endpoints;
#[path = "services/faults.rs"]
mod faults;
#[path = "services/names.rs"]
mod names;
#[path = "services/objects.rs"]
mod objects;
#[path = "services/protocols.rs"]
mod protocols;

use std::time::Duration;

use kedge_e2e::{BUSYBOX, HostOptions, Node, Output, eventually};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// Ports of the pods: named in the spec, so that Services can name them.
const HTTP: u16 = 8080;

/// The cluster of the test, with two servers and a client.
struct Lab {
    node: Node,
}

impl Lab {
    fn up() -> Option<Self> {
        let lab = Self {
            node: Node::up(HostOptions {
                flags: vec!["--load-balancer-pool".to_owned(), addresses::POOL.to_owned()],
                ..HostOptions::default()
            })?,
        };
        lab.server("one", "app: web", "");
        lab.server("two", "app: web", "");
        lab.server("lone", "app: lone", "");
        for pod in ["one", "two", "lone"] {
            lab.node.ready(pod);
        }
        Some(lab)
    }

    /// A pod that tells its name over HTTP. `labels` and `container` are YAML; the container's is indented by four.
    fn server(&self, name: &str, labels: &str, container: &str) {
        let script = "mkdir /tmp/w; hostname > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w";
        self.node.kubectl.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec:\n  \
             terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    \
             command: [sh, -c, '{script}']\n    ports: [{{name: web, containerPort: {HTTP}}}]\n{container}"
        ));
    }

    /// Makes or changes a Service; gives it back as it is stored.
    fn service(&self, name: &str, spec: Value) -> Value {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        self.node.kubectl.apply(&service.to_string());
        self.node.get("service", name)
    }

    fn patch(&self, name: &str, patch: Value) -> Value {
        self.node.kubectl.run(&["patch", "service", name, "--type=merge", "-p", &patch.to_string()]);
        self.node.get("service", name)
    }

    fn delete(&self, names: &[&str]) {
        self.node.kubectl.run(&[&["delete", "service"], names].concat());
    }

    /// One question from the node.
    fn ask(&self, target: &str) -> Output {
        self.node.host.run("curl", &["-sS", "--max-time", "3", &format!("http://{target}/")])
    }

    /// Waits until the node gets an answer that `check` accepts.
    fn answers(&self, what: &str, target: &str, check: impl Fn(&str) -> bool) {
        eventually(&format!("{what}: {target} answers the node"), PATIENCE, || {
            let output = self.ask(target);
            if output.ok && check(output.stdout.trim()) { Ok(()) } else { Err(output.all()) }
        });
    }

    /// Waits until the node gets no answer, for a reason that contains `text`.
    fn refuses(&self, what: &str, target: &str, text: &str) {
        eventually(&format!("{what}: {target} does not answer the node"), PATIENCE, || {
            let output = self.ask(target);
            if !output.ok && output.all().contains(text) { Ok(()) } else { Err(output.all()) }
        });
    }

    /// Waits until a pod gets an answer that `check` accepts.
    fn answers_pod(&self, pod: &str, target: &str, check: impl Fn(&str) -> bool) {
        eventually(&format!("{target} answers {pod}"), PATIENCE, || {
            let command = ["exec", pod, "--", "curl", "-sS", "--max-time", "3", &format!("http://{target}/")];
            let output = self.node.kubectl.try_run(&command);
            if output.ok && check(output.stdout.trim()) { Ok(()) } else { Err(output.all()) }
        });
    }

    /// Waits until each of the names has answered.
    fn reaches_all(&self, what: &str, target: &str, names: &[&str]) {
        names.iter().for_each(|name| self.answers(what, target, |answer| answer == *name));
    }
}

/// The address of a Service and its port.
fn at(service: &Value, port: u16) -> String {
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    assert!(!address.is_empty() && address != "None", "{service}");
    format!("{address}:{port}")
}

fn node_port(service: &Value, index: usize) -> u64 {
    let port = service["spec"]["ports"][index]["nodePort"].as_u64();
    port.unwrap_or_else(|| panic!("there is no node port in {service}"))
}

fn web(port: u16) -> Value {
    json!([{"port": port, "targetPort": "web"}])
}

#[test]
fn services_carry_packets_in_every_form() {
    let Some(lab) = Lab::up() else { return };
    choices::endpoints_ports_and_their_changes(&lab);
    choices::affinity_and_policies(&lab);
    choices::readiness_decides_unless_it_is_published(&lab);
    addresses::types_change_into_one_another(&lab);
    addresses::external_and_load_balancer_addresses(&lab);
    addresses::a_pool_gives_load_balancers_addresses(&lab);
    addresses::health_checks_answer_load_balancers(&lab);
    addresses::host_ports(&lab);
    objects::addresses_and_their_ranges(&lab);
    objects::statuses_and_collections(&lab);
    names::services_and_pods_have_names(&lab);
    names::aliases_follow_their_service(&lab);
    names::pods_choose_their_resolvers(&lab);
    names::a_corefile_is_followed(&lab);
    protocols::pods_and_the_node_talk(&lab);
    protocols::one_port_has_two_protocols(&lab);
    protocols::host_ports_of_two_protocols(&lab);
    protocols::the_api_server_is_a_proxy(&lab);
    endpoints::endpoints_follow_pods(&lab);
    endpoints::endpoints_by_hand(&lab);
    endpoints::endpoints_are_soon_there(&lab);
    faults::rules_that_are_removed_come_back(&lab);
    faults::rules_outlive_a_kill(lab);
}
