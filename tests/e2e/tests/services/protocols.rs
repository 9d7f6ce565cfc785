//! HTTP and UDP between pods, from the node, through Services and host ports; and through the API server's proxy.

use kedge_e2e::{ApiProxy, BUSYBOX, eventually};
use serde_json::json;

use super::{Lab, PATIENCE, at};

/// Two servers without modules: HTTP, which tells its name, the method and the path; and UDP, which tells its name.
const SERVER: &str = r#"$n = `hostname`; chomp $n;
if (!fork) { socket(U, 2, 2, 17); bind(U, pack("Snx12", 2, 8081)) || die; while ($f = recv(U, $b, 512, 0)) { send(U, $n, 0, $f) } }
socket(S, 2, 1, 6); setsockopt(S, 1, 2, pack("i", 1)); bind(S, pack("Snx12", 2, 8080)) || die; listen(S, 64);
while (accept(C, S)) { sysread C, $b, 8192; ($m, $p) = split / /, $b; $t = "$n $m $p"; $l = length $t; $t = "" if $m eq "HEAD";
syswrite C, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: $l\r\nConnection: close\r\n\r\n$t"; close C }"#;

const ASK_UDP: &str = r#"socket(S, 2, 2, 17); connect(S, pack("SnC4x8", 2, $ARGV[1], split(/\./, $ARGV[0]))) || die;
for (1 .. 3) { syswrite S, "x"; eval { local $SIG{ALRM} = sub { die }; alarm 1; sysread S, $b, 512; alarm 0 }; last if $b }
print $b"#;

fn talker(lab: &Lab, name: &str, ports: &str) {
    let script: Vec<String> = SERVER.lines().map(|line| format!("        {line}\n")).collect();
    lab.node.kubectl.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: talker}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    \
         command:\n    - perl\n    - -e\n    - |\n{}{ports}",
        script.concat()
    ));
}

/// What answers over UDP; from the node where no pod is named.
fn ask_udp(lab: &Lab, pod: Option<&str>, address: &str, port: u64) -> String {
    let ask = ["perl", "-e", ASK_UDP, address, &port.to_string()];
    let output = match pod {
        Some(pod) => lab.node.kubectl.try_run(&[&["exec", pod, "--"], ask.as_slice()].concat()),
        None => lab.node.host.run("perl", &ask[1..]),
    };
    output.stdout.trim().to_owned()
}

fn wait_udp(lab: &Lab, pod: Option<&str>, address: &str, port: u64, is_right: impl Fn(&str) -> bool) {
    eventually(&format!("UDP from {pod:?} to {address}:{port}"), PATIENCE, || {
        let seen = ask_udp(lab, pod, address, port);
        if is_right(&seen) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

pub(super) fn pods_and_the_node_talk(lab: &Lab) {
    for name in ["talker-1", "talker-2"] {
        talker(lab, name, "");
    }
    let addresses = ["talker-1", "talker-2"].map(|name| (name, lab.node.address(name)));
    for (name, address) in &addresses {
        let expected = format!("{name} GET /");
        for (pod, _) in &addresses {
            lab.answers_pod(pod, &format!("{address}:8080"), |answer| answer == expected);
            wait_udp(lab, Some(pod), address, 8081, |answer| answer == *name);
        }
        lab.answers("a pod", &format!("{address}:8080"), |answer| answer == expected);
        wait_udp(lab, None, address, 8081, |answer| answer == *name);
    }
}

pub(super) fn one_port_has_two_protocols(lab: &Lab) {
    let (tcp, udp) = (
        json!({"name": "tcp", "port": 80, "protocol": "TCP", "targetPort": 8080}),
        json!({"name": "udp", "port": 80, "protocol": "UDP", "targetPort": 8081}),
    );
    let service = lab.service("both", json!({"selector": {"app": "talker"}, "ports": [tcp, udp]}));
    let target = at(&service, 80);
    let address = target.trim_end_matches(":80");
    let is_talker = |answer: &str| answer.starts_with("talker-");
    lab.answers("TCP", &target, is_talker);
    wait_udp(lab, None, address, 80, is_talker);
    wait_udp(lab, Some("lone"), address, 80, is_talker);
    lab.patch("both", json!({"spec": {"ports": [tcp]}}));
    wait_udp(lab, None, address, 80, str::is_empty);
    lab.answers("TCP alone", &target, is_talker);
    lab.patch("both", json!({"spec": {"ports": [udp]}}));
    lab.refuses("TCP that is gone", &target, "");
    wait_udp(lab, None, address, 80, is_talker);
    lab.delete(&["both"]);
}

/// The same number for two protocols at one address, and for one protocol at two addresses, is no conflict.
pub(super) fn host_ports_of_two_protocols(lab: &Lab) {
    let address = lab.node.host.address();
    let places = [("at-loopback", "127.0.0.1", "TCP"), ("at-node", address, "TCP"), ("at-node-udp", address, "UDP")];
    for (name, ip, protocol) in places {
        let port = if protocol == "TCP" { 8080 } else { 8081 };
        let ports =
            format!("    ports: [{{containerPort: {port}, hostPort: 18090, hostIP: {ip}, protocol: {protocol}}}]\n");
        talker(lab, name, &ports);
    }
    places.iter().for_each(|(name, _, _)| drop(lab.node.ready(name)));
    lab.answers("loopback", "127.0.0.1:18090", |answer| answer.starts_with("at-loopback "));
    lab.answers("the node", &format!("{address}:18090"), |answer| answer.starts_with("at-node "));
    wait_udp(lab, Some("lone"), address, 18090, |answer| answer == "at-node-udp");
    wait_udp(lab, None, address, 18090, |answer| answer == "at-node-udp");
    lab.node.kubectl.run(&["delete", "pod", "at-loopback", "at-node", "at-node-udp", "--wait=false"]);
}

/// Pods and Services through the API server, with every method, with and without a path.
pub(super) fn the_api_server_is_a_proxy(lab: &Lab) {
    let api = ApiProxy::start(&lab.node.host);
    lab.service(
        "proxied",
        json!({"selector": {"app": "talker"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}),
    );
    let root = "http://localhost/api/v1/namespaces/default";
    let places = [
        "pods/talker-1/proxy",
        "pods/http:talker-1:8080/proxy",
        "services/proxied/proxy",
        "services/http:proxied:http/proxy",
    ];
    for (place, path) in places.iter().flat_map(|place| [(place, "/"), (place, "/some/path?method=x")]) {
        // A pod's own port has to be named where it is not the first of its container.
        let place = if *place == "pods/talker-1/proxy" { "pods/talker-1:8080/proxy" } else { place };
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            eventually(&format!("{method} {place}{path}"), PATIENCE, || {
                let output = api.curl(&["-X", method, &format!("{root}/{place}{path}")]);
                let is_right =
                    output.stdout.starts_with("talker-") && output.stdout.ends_with(&format!(" {method} {path}"));
                if is_right { Ok(()) } else { Err(output.all()) }
            });
        }
        let head = api.curl(&["-I", &format!("{root}/{place}{path}")]);
        assert!(head.stdout.starts_with("HTTP/1.1 200"), "{}", head.all());
    }
    lab.delete(&["proxied"]);
    lab.node.kubectl.run(&["delete", "pod", "talker-1", "talker-2", "--wait=false"]);
}
