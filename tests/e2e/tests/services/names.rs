//! Names as pods see them: Services, headless ones, pods with host names, aliases, `/etc/hosts`, `dnsConfig`; and what a
//! Corefile adds to them.

use kedge_e2e::{BUSYBOX, eventually};
use serde_json::json;

use super::{Lab, PATIENCE, at, web};

/// Asks one question over TCP and prints the last record's address; perl can that without a module.
const OVER_TCP: &str = r#"$q = pack("nnnnnn", 7, 256, 1, 0, 0, 0);
for (split /\./, $ARGV[1]) { $q .= pack("C/a", $_) } $q .= "\0" . pack("nn", 1, 1);
socket(S, 2, 1, 6) && connect(S, pack("SnC4x8", 2, 53, split(/\./, $ARGV[0]))) || die "no connection";
syswrite S, pack("n/a", $q); alarm 5; sysread S, $b, 512; print join(".", unpack("C4", substr($b, -4)))"#;

fn nslookup(lab: &Lab, pod: &str, arguments: &str, expected: &[&str]) {
    eventually(&format!("{pod}: nslookup {arguments}"), PATIENCE, || {
        let output = lab.node.kubectl.try_run(&["exec", pod, "--", "sh", "-c", &format!("nslookup {arguments}")]);
        if expected.iter().all(|text| output.all().contains(text)) { Ok(()) } else { Err(output.all()) }
    });
}

pub(super) fn services_and_pods_have_names(lab: &Lab) {
    // Partly qualified names go through the search path of the pod.
    for name in ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local"] {
        lab.answers_pod("lone", name, |answer| answer == "one" || answer == "two");
    }
    nslookup(
        lab,
        "lone",
        "-type=srv _https._tcp.kubernetes.default.svc.cluster.local",
        &["0 100 443 kubernetes.default"],
    );
    let api = lab.node.get("service", "kubernetes")["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    nslookup(lab, "lone", "kubernetes.default.svc.cluster.local", &[&format!("Address: {api}")]);
    let over_tcp = ["exec", "lone", "--", "perl", "-e", OVER_TCP, "10.96.0.10", "kubernetes.default.svc.cluster.local"];
    assert_eq!(lab.node.kubectl.run(&over_tcp).trim(), api);

    let headless = json!({"clusterIP": "None", "selector": {"app": "named"},
        "ports": [{"name": "http", "port": 8080}]});
    lab.service("headless", headless);
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: named, labels: {{app: named}}}}\nspec:\n  hostname: who\n  \
         subdomain: headless\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    \
         command: [sh, -c, 'mkdir /tmp/w; hostname > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w']\n"
    );
    lab.node.kubectl.apply(&manifest);
    let address = lab.node.address("named");
    for pod in ["lone", "named"] {
        for name in ["who.headless.default.svc.cluster.local", "who.headless", "headless.default", "headless"] {
            lab.answers_pod(pod, &format!("{name}:8080"), |answer| answer == "who");
        }
    }
    // Its own name is in its file, without any resolver.
    lab.answers_pod("named", "who:8080", |answer| answer == "who");
    let hosts = lab.node.exec("named", "cat /etc/hosts");
    assert!(hosts.contains(&format!("{address}\twho.headless.default.svc.cluster.local\twho")), "{hosts}");
    let srv = "-type=srv _http._tcp.headless.default.svc.cluster.local";
    nslookup(lab, "lone", srv, &["8080 who.headless.default.svc.cluster.local"]);
    let dashed = address.replace('.', "-");
    lab.answers_pod("lone", &format!("{dashed}.default.pod.cluster.local:8080"), |answer| answer == "who");
    lab.node.kubectl.run(&["delete", "pod", "named", "--wait=false"]);
    lab.delete(&["headless"]);
}

pub(super) fn aliases_follow_their_service(lab: &Lab) {
    let alias = "extern.default.svc.cluster.local";
    let external = |name: &str| json!({"type": "ExternalName", "externalName": name});
    lab.service("extern", external("foo.example.com"));
    nslookup(lab, "lone", &format!("-type=cname {alias}"), &["canonical name = foo.example.com"]);
    lab.patch("extern", json!({"spec": {"externalName": "bar.example.com"}}));
    nslookup(lab, "lone", &format!("-type=cname {alias}"), &["canonical name = bar.example.com"]);
    let to_cluster_ip =
        json!({"spec": {"type": "ClusterIP", "externalName": null, "selector": {"app": "web"}, "ports": web(80)}});
    let service = lab.patch("extern", to_cluster_ip);
    nslookup(lab, "lone", &format!("-type=a {alias}"), &[at(&service, 80).trim_end_matches(":80")]);
    lab.delete(&["extern"]);
}

pub(super) fn pods_choose_their_resolvers(lab: &Lab) {
    lab.node.script(
        "resolving",
        "cat /etc/resolv.conf",
        "",
        "  dnsPolicy: None\n  dnsConfig: {nameservers: [192.0.2.53], searches: [resolv.example], \
         options: [{name: ndots, value: '2'}]}\n",
    );
    let file = lab.node.output("resolving");
    for line in ["nameserver 192.0.2.53", "search resolv.example", "options ndots:2"] {
        assert!(file.lines().any(|seen| seen.trim() == line), "{line}: {file}");
    }
}

/// A Corefile that comes, changes and goes: what it says holds without a restart, what is not supported is named.
pub(super) fn a_corefile_is_followed(lab: &Lab) {
    let config_map = |corefile: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"},
            "data": {"Corefile": corefile}})
        .to_string()
    };
    let kubectl = &lab.node.kubectl;
    let text = ".:53 {\n errors\n template IN A {\n }\n rewrite name www.alias.test web.default.svc.cluster.local\n \
                hosts {\n 192.0.2.99 fixed.test\n fallthrough\n }\n forward . /etc/resolv.conf\n cache 30\n}\n";
    kubectl.apply(&config_map(text));
    nslookup(lab, "lone", "fixed.test", &["Address: 192.0.2.99"]);
    lab.answers_pod("lone", "www.alias.test", |answer| answer == "one" || answer == "two");
    eventually("the event about what is not supported", PATIENCE, || {
        let selector = "involvedObject.name=coredns,reason=CorefileNotSupported";
        let path = "jsonpath={.items[*].message}";
        let seen = kubectl.run(&["get", "events", "-n", "kube-system", "--field-selector", selector, "-o", path]);
        if seen.contains("line 3: the plugin template") { Ok(()) } else { Err(seen) }
    });
    // A text that can't be read changes nothing, and is reported.
    kubectl.apply(&config_map(".:53 {\n errors\n"));
    eventually("the report about a text that can't be read", PATIENCE, || {
        let seen = lab.node.host.kedge("status", &["--output", "json"]).stdout;
        if seen.contains("line 1: the block has no end") { Ok(()) } else { Err(seen) }
    });
    nslookup(lab, "lone", "fixed.test", &["Address: 192.0.2.99"]);
    kubectl.run(&["delete", "configmap", "coredns", "-n", "kube-system"]);
    eventually("the Corefile is forgotten", PATIENCE, || {
        let output = kubectl.try_run(&["exec", "lone", "--", "nslookup", "fixed.test"]);
        if output.all().contains("192.0.2.99") { Err(output.all()) } else { Ok(()) }
    });
    lab.answers_pod("lone", "web.default", |answer| answer == "one" || answer == "two");
    // The figures, where CoreDNS has them.
    let metrics = lab.node.exec("lone", "curl -sS http://kube-dns.kube-system:9153/metrics");
    for expected in [
        "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\"",
        "coredns_reload_failed_total 1",
        "plugin=\"hosts\"",
    ] {
        assert!(metrics.contains(expected), "{expected}: {metrics}");
    }
    assert_eq!(lab.node.exec("lone", "curl -sS http://kube-dns.kube-system:9153/ready"), "OK");
}
