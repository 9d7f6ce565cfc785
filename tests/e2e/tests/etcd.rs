//! Control planes whose store is an etcd: kubectl sees no difference, two of them are one cluster, and nothing that was
//! acknowledged is lost when either side is killed.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use kedge_e2e::{Etcd, Host, HostOptions, Kubectl, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

fn host(etcd: &Etcd) -> Option<Host> {
    let flags = vec!["--etcd-servers".to_owned(), etcd.url()];
    Host::prepare(HostOptions { control_plane_only: true, flags, ..HostOptions::default() })
}

/// Another control plane of the same cluster: with the first one's authorities and keys.
fn second_of(first: &Host, etcd: &Etcd) -> Option<Host> {
    let mut second = host(etcd)?;
    std::fs::create_dir_all(second.data_dir()).expect("a directory can be made");
    let (from, to) = (first.data_dir().join("pki"), second.data_dir().join("pki"));
    assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs").success());
    second.start();
    Some(second)
}

fn text_of(kubectl: &Kubectl, name: &str) -> String {
    kubectl.try_run(&["get", "configmap", name, "-o", "jsonpath={.data.at}"]).all()
}

#[test]
fn two_control_planes_over_one_etcd_are_one_cluster() {
    let Some(mut etcd) = Etcd::up() else { return };
    let Some(mut first) = host(&etcd) else { return };
    first.start();
    let Some(mut second) = second_of(&first, &etcd) else { return };
    let (one, other) = (first.kubectl(), second.kubectl());
    each_sees_what_the_other_does(&one, &other);
    addresses_are_given_once(&one, &other);
    values_are_json(&etcd);
    killed_servers_lose_nothing(&mut first, &mut second, &one, &other);
    a_killed_etcd_is_waited_for(&mut etcd, &one, &other);
}

fn each_sees_what_the_other_does(one: &Kubectl, other: &Kubectl) {
    one.run(&["create", "configmap", "shared", "--from-literal=at=0"]);
    for round in 1..10 {
        let (writer, reader) = if round % 2 == 0 { (one, other) } else { (other, one) };
        let patch = format!("{{\"data\":{{\"at\":\"{round}\"}}}}");
        writer.run(&["patch", "configmap", "shared", "--type=merge", "-p", &patch]);
        assert_eq!(text_of(reader, "shared"), round.to_string(), "at once, not soon");
    }
    // A watch through one server shows what the other one writes.
    let mut wait = other.command(&["wait", "configmap/shared", "--for=jsonpath={.data.at}=watched", "--timeout=60s"]);
    let mut wait = wait.stdout(Stdio::null()).spawn().expect("kubectl runs");
    one.run(&["patch", "configmap", "shared", "--type=merge", "-p", r#"{"data":{"at":"watched"}}"#]);
    assert!(wait.wait().expect("our own child can be waited for").success(), "the watch showed it");
    // A token of one is good at the other.
    let token = one.run(&["create", "token", "default"]);
    let review = format!(
        "apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nmetadata: {{name: x}}\nspec: {{token: {}}}\n",
        token.trim()
    );
    let reviewed = other.try_run_with(&["create", "-f", "-", "-o", "jsonpath={.status.user.username}"], &review);
    assert_eq!(reviewed.stdout, "system:serviceaccount:default:default", "{}", reviewed.all());
}

fn addresses_are_given_once(one: &Kubectl, other: &Kubectl) {
    let start = |at: usize| {
        let (name, kubectl) = (format!("service-{at}"), if at.is_multiple_of(2) { one } else { other });
        let mut command = kubectl.command(&["create", "service", "nodeport", &name, "--tcp=80"]);
        command.stdout(Stdio::null()).spawn().expect("kubectl runs")
    };
    for mut create in (0..20).map(start).collect::<Vec<_>>() {
        assert!(create.wait().expect("our own child can be waited for").success(), "each Service is made");
    }
    for path in ["{.items[*].spec.clusterIP}", "{.items[*].spec.ports[*].nodePort}"] {
        let held = other.run(&["get", "services", "-l", "app", "-o", &format!("jsonpath={path}")]);
        let distinct: BTreeSet<_> = held.split_whitespace().collect();
        assert_eq!(distinct.len(), 20, "{held}");
    }
    let endpoints = one.run(&["get", "endpoints", "kubernetes", "-o", "jsonpath={.subsets[*].ports[*].port}"]);
    assert_eq!(endpoints, other.run(&["get", "endpoints", "kubernetes", "-o", "jsonpath={.subsets[*].ports[*].port}"]));
}

/// What is in etcd can be read by tools that know JSON, under the keys of the API server.
fn values_are_json(etcd: &Etcd) {
    let value = etcd.ctl(&["get", "/registry/configmaps/default/shared", "--print-value-only"]);
    let object: serde_json::Value = serde_json::from_str(&value).expect("it is JSON");
    assert_eq!((&object["kind"], &object["data"]["at"]), (&"ConfigMap".into(), &"watched".into()));
}

fn killed_servers_lose_nothing(first: &mut Host, second: &mut Host, one: &Kubectl, other: &Kubectl) {
    one.run(&["create", "configmap", "before", "--from-literal=at=kill"]);
    first.kill();
    assert_eq!(text_of(other, "before"), "kill", "the other server goes on");
    other.run(&["create", "configmap", "meanwhile", "--from-literal=at=alone"]);
    second.kill();
    first.start();
    assert_eq!((text_of(one, "before"), text_of(one, "meanwhile")), ("kill".to_owned(), "alone".to_owned()));
    second.start();
    assert_eq!(text_of(other, "meanwhile"), "alone");
}

fn a_killed_etcd_is_waited_for(etcd: &mut Etcd, one: &Kubectl, other: &Kubectl) {
    one.run(&["create", "configmap", "acknowledged", "--from-literal=at=1"]);
    etcd.kill();
    let refused = one.try_run(&["create", "configmap", "refused", "--from-literal=at=1"]);
    assert!(!refused.ok && refused.all().contains("etcd"), "it is said whom to look at: {}", refused.all());
    let unready = one.try_run(&["get", "--raw", "/readyz"]);
    assert!(!unready.ok && unready.all().contains("[-]etcd failed"), "{}", unready.all());
    assert_eq!(one.run(&["get", "--raw", "/livez"]), "ok", "nobody needs to start it anew");
    etcd.start();
    for kubectl in [one, other] {
        eventually("requests that are answered again", PATIENCE, || match text_of(kubectl, "acknowledged").as_str() {
            "1" => Ok(()),
            said => Err(said.to_owned()),
        });
    }
    assert_eq!(one.run(&["get", "--raw", "/readyz"]), "ok");
    one.run(&["create", "configmap", "after", "--from-literal=at=1"]);
    assert_eq!(text_of(other, "after"), "1");
}
