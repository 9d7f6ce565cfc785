//! NetworkPolicies with kubectl and real pods.

use std::time::Duration;

use kedge_e2e::{Host, HostOptions, Kubectl, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const IMAGE: &str = "localhost/busybox:test";

fn client(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  \
         containers: [{{name: c, image: '{IMAGE}', command: [sleep, '3600']}}]\n"
    )
}

fn policy(spec: &str) -> String {
    format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: demo}}\nspec: {spec}\n")
}

/// Whether a pod gets an answer of the demo through its Service.
fn expect_answer(kubectl: &Kubectl, pod: &str, wanted: bool) {
    eventually(&format!("{pod} gets an answer: {wanted}"), PATIENCE, || {
        let command = ["exec", pod, "--", "curl", "-sS", "--max-time", "2", "http://kedge-demo/hostname"];
        let answer = kubectl.try_run(&command);
        if answer.ok == wanted { Ok(()) } else { Err(answer.all()) }
    });
}

#[test]
fn policies_hold_for_services_and_end_with_their_deletion() {
    let options = HostOptions { flags: vec!["--demo".to_owned()], ..HostOptions::default() };
    let Some(host) = Host::up(options) else { return };
    let archive = host.file("busybox.tar");
    kedge_e2e::busybox_image(IMAGE, &archive);
    let loaded = host.kedge("image", &["load", archive.to_str().expect("text")]);
    assert!(loaded.ok, "{}", loaded.all());
    let kubectl = host.kubectl();
    for name in ["friend", "stranger"] {
        kubectl.apply(&client(name));
    }
    kubectl.run(&["wait", "--for=condition=Ready", "pod/friend", "pod/stranger", "--timeout=60s"]);
    expect_answer(&kubectl, "friend", true);
    expect_answer(&kubectl, "stranger", true);

    kubectl.apply(&policy("{podSelector: {matchLabels: {app: kedge-demo}}, policyTypes: [Ingress]}"));
    expect_answer(&kubectl, "friend", false);
    expect_answer(&kubectl, "stranger", false);
    let from_node = host.run("curl", &["-sS", "--max-time", "5", "http://127.0.0.1:30090/hostname"]);
    assert!(from_node.ok, "a node reaches its own pods: {}", from_node.all());
    let ready = "jsonpath={.status.readyReplicas}";
    assert_eq!(kubectl.run(&["get", "deployment", "kedge-demo", "-o", ready]), "3", "probes are the node's");

    kubectl.apply(&policy(
        "{podSelector: {matchLabels: {app: kedge-demo}}, ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}], \
         ports: [{port: http}]}]}",
    ));
    expect_answer(&kubectl, "friend", true);
    expect_answer(&kubectl, "stranger", false);
    kubectl.run(&["label", "pod", "stranger", "app=friend", "--overwrite"]);
    expect_answer(&kubectl, "stranger", true);

    kubectl.run(&["delete", "networkpolicy", "demo"]);
    kubectl.run(&["label", "pod", "stranger", "app=stranger", "--overwrite"]);
    expect_answer(&kubectl, "stranger", true);

    // Nothing out.
    kubectl.apply(&policy("{podSelector: {matchLabels: {app: friend}}, policyTypes: [Egress]}"));
    expect_answer(&kubectl, "friend", false);
    expect_answer(&kubectl, "stranger", true);

    first_packets_are_judged_too(&kubectl);
}

/// A pod that connects as soon as it runs is isolated already.
fn first_packets_are_judged_too(kubectl: &Kubectl) {
    let address = kubectl.run(&["get", "service", "kedge-demo", "-o", "jsonpath={.spec.clusterIP}"]);
    let script = format!("curl -sS --max-time 3 http://{address}/hostname && echo reached; echo asked; sleep 3600");
    let names = [("early-1", "friend"), ("early-2", "friend"), ("early-3", "friend"), ("free", "stranger")];
    for (name, app) in names {
        kubectl.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {app}}}}}\nspec:\n  \
             terminationGracePeriodSeconds: 1\n  \
             containers: [{{name: c, image: '{IMAGE}', command: [sh, -c, '{script}']}}]\n"
        ));
    }
    for (name, app) in names {
        let log = eventually(&format!("{name} has asked"), PATIENCE, || {
            let log = kubectl.try_run(&["logs", name]);
            if log.stdout.contains("asked") { Ok(log.stdout) } else { Err(log.all()) }
        });
        assert_eq!(log.contains("reached"), app == "stranger", "{name}: {log}");
    }
}
