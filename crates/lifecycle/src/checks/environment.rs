//! What around the machine gets between the parts of a cluster: a firewall, a proxy for HTTP, an external etcd that is too
//! old. kubeadm's checks, with its names and texts.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::Request;
use ipnet::IpNet;
use kedge_client::Client;
use kube::Config;
use kube::client::Body;

use super::host_checks::{below, read};
use super::{CheckFacts, CheckResult, Role};
use crate::addresses::nth_address;
use crate::cluster_configuration::ExternalEtcd;

const KUBELET_PORT: u16 = 10250;
const FIREWALLD: &str = "/run/firewalld.pid";
const PATIENCE: Duration = Duration::from_secs(10);
// DIVERGES: kubeadm wants 3.5.24; what is asked of etcd here, 3.4 of Debian 12 does as well.
/// The oldest etcd that is good enough.
const OLDEST_ETCD: (u64, u64, u64) = (3, 4, 0);

pub(super) fn firewalld(facts: &CheckFacts) -> Vec<CheckResult> {
    let pid = read(facts, FIREWALLD);
    let is_active = !pid.trim().is_empty() && below(facts, &format!("/proc/{}", pid.trim())).is_dir();
    if facts.role == Role::Worker || !(is_active || is_active_service(facts)) {
        return Vec::new();
    }
    vec![CheckResult::new("Firewalld").warning(format!(
        "firewalld is active, please ensure ports [{} {KUBELET_PORT}] are open or your cluster may not function correctly",
        facts.api_port
    ))]
}

fn is_active_service(facts: &CheckFacts) -> bool {
    let has_systemd = below(facts, "/run/systemd/system").is_dir() && facts.root == Path::new("/");
    let ask = || std::process::Command::new("systemctl").args(["is-active", "--quiet", "firewalld"]).status();
    has_systemd && ask().is_ok_and(|status| status.success())
}

/// Whether the API server, Services and pods would be reached through a proxy.
pub(super) fn proxies(facts: &CheckFacts) -> Vec<CheckResult> {
    let variable = |name: &str| {
        let value = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase()));
        value.unwrap_or_default()
    };
    let exceptions = variable("NO_PROXY");
    find_proxied(facts, &variable("HTTPS_PROXY"), &exceptions)
}

fn find_proxied(facts: &CheckFacts, proxy: &str, exceptions: &str) -> Vec<CheckResult> {
    let mut results = Vec::new();
    if proxy.is_empty() {
        return results;
    }
    let proxy = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
    if let Some(host) = facts.api_host.as_ref().filter(|host| is_proxied(host, exceptions)) {
        let url = if host.contains(':') { format!("https://[{host}]:1234") } else { format!("https://{host}") };
        results.push(CheckResult::new("HTTPProxy").warning(format!(
            "Connection to \"{url}\" uses proxy \"{proxy}\". If that is not intended, adjust your proxy settings"
        )));
    }
    for (_, range) in &facts.ranges {
        let Some(first) = nth_address(range, 1) else { continue };
        if is_proxied(&first.to_string(), exceptions) {
            results.push(CheckResult::new("HTTPProxyCIDR").warning(format!(
                "connection to \"{range}\" uses proxy \"{proxy}\". This may lead to malfunctional cluster setup. Make sure \
                 that Pod and Services IP ranges specified correctly as exceptions in proxy configuration"
            )));
        }
    }
    results
}

/// Whether a host is none of the exceptions: names with what is below them, addresses, ranges, `*`.
fn is_proxied(host: &str, exceptions: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return false;
    }
    !exceptions.split(',').map(str::trim).filter(|exception| !exception.is_empty()).any(|exception| {
        let name = exception.trim_start_matches('*').trim_start_matches('.');
        match (address, exception.parse::<IpNet>(), exception.parse::<IpAddr>()) {
            _ if exception == "*" => true,
            (Some(address), Ok(range), _) => range.contains(&address),
            (Some(address), _, Ok(excepted)) => address == excepted,
            (Some(_), ..) => false,
            (None, ..) => host.eq_ignore_ascii_case(name) && !exception.starts_with('.') || is_below(host, name),
        }
    })
}

fn is_below(host: &str, name: &str) -> bool {
    let (host, name) = (host.to_lowercase(), name.to_lowercase());
    host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.'))
}

/// The files that an external etcd's clients need.
pub(crate) fn external_etcd_files(etcd: &ExternalEtcd) -> CheckResult {
    let files = [&etcd.ca_file, &etcd.cert_file, &etcd.key_file];
    let missing = files.into_iter().filter(|file| !file.is_empty() && !Path::new(file).exists());
    missing.fold(CheckResult::new("ExternalEtcdClientCertificates"), |result, file| {
        result.error(format!("{file} doesn't exist"))
    })
}

/// The version of every member of an external etcd.
pub(crate) async fn external_etcd_version(etcd: &ExternalEtcd) -> CheckResult {
    let mut result = CheckResult::new("ExternalEtcdVersion");
    for endpoint in &etcd.endpoints {
        let asked = tokio::time::timeout(PATIENCE, ask_version(etcd, endpoint)).await;
        let wrong = match asked {
            Ok(Ok(version)) => judge_version(&version),
            Ok(Err(why)) => Some(format!("{endpoint}/version: {why}")),
            Err(_) => Some(format!("{endpoint}/version: no answer within {} s", PATIENCE.as_secs())),
        };
        if let Some(text) = wrong {
            result = result.error(text);
        }
    }
    result
}

async fn ask_version(etcd: &ExternalEtcd, endpoint: &str) -> Result<String, String> {
    let mut config = Config::new(endpoint.parse().map_err(|_| "this is no URL".to_owned())?);
    if !etcd.ca_file.is_empty() {
        let pem = std::fs::read_to_string(&etcd.ca_file).map_err(|error| format!("{}: {error}", etcd.ca_file))?;
        config.root_cert = Some(kedge_pki::certificates_der(&pem).map_err(|error| error.to_string())?);
    }
    let file = |path: &str| (!path.is_empty()).then(|| path.to_owned());
    (config.auth_info.client_certificate, config.auth_info.client_key) = (file(&etcd.cert_file), file(&etcd.key_file));
    let client = Client::try_from(config).map_err(|error| error.to_string())?;
    let request = Request::get("/version").body(Body::empty()).map_err(|error| error.to_string())?;
    let answer = client.send(request).await.map_err(|error| error.to_string())?;
    let bytes = answer.into_body().collect_bytes().await.map_err(|error| error.to_string())?;
    let answer: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    answer["etcdserver"].as_str().map(str::to_owned).ok_or_else(|| "the answer names no version".to_owned())
}

/// What is wrong with a version.
fn judge_version(version: &str) -> Option<String> {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u64>().ok());
    let (Some(Some(major)), Some(Some(minor)), Some(Some(patch))) = (parts.next(), parts.next(), parts.next()) else {
        return Some(format!("couldn't parse external etcd version {version:?}"));
    };
    let (a, b, c) = OLDEST_ETCD;
    ((major, minor, patch) < OLDEST_ETCD).then(|| {
        format!("this version of kedge only supports external etcd version >= {a}.{b}.{c}. Current version: {version}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(root: &Path, api_host: &str) -> CheckFacts {
        CheckFacts {
            role: Role::Init,
            node_name: "n1".to_owned(),
            node_ip: "192.0.2.2".parse().unwrap(),
            api_port: 6443,
            api_host: Some(api_host.to_owned()),
            cri_socket: None,
            etcd_data_dir: None,
            ranges: vec![("--service-cidr", "10.96.0.0/12".parse().unwrap())],
            root: root.to_owned(),
        }
    }

    #[test]
    fn a_proxy_on_the_way_is_said() {
        let check = |host: &str, exceptions: &str, expected: &[&str]| {
            let found = find_proxied(&facts(Path::new("/none"), host), "proxy:3128", exceptions);
            let names: Vec<&str> = found.iter().map(|result| result.name.as_str()).collect();
            assert_eq!(names, expected, "{host} {exceptions}");
        };
        let both = ["HTTPProxy", "HTTPProxyCIDR"];
        check("192.0.2.2", "", &both);
        check("192.0.2.2", "example.org, 10.96.0.1", &["HTTPProxy"]);
        check("192.0.2.2", "192.0.2.0/24,10.96.0.0/12", &[]);
        check("192.0.2.2", "*", &[]);
        check("127.0.0.1", "", &["HTTPProxyCIDR"]);
        check("lb.example.org", "example.org", &["HTTPProxyCIDR"]);
        check("lb.example.org", ".example.org", &["HTTPProxyCIDR"]);
        check("example.org", ".example.org", &both);
        check("badexample.org", "example.org", &both);
        let found = find_proxied(&facts(Path::new("/none"), "192.0.2.2"), "proxy:3128", "");
        assert_eq!(
            found[0].warnings,
            [
                "Connection to \"https://192.0.2.2\" uses proxy \"http://proxy:3128\". If that is not intended, adjust your \
                 proxy settings"
            ]
        );
        assert!(found[1].warnings[0].starts_with("connection to \"10.96.0.0/12\" uses proxy"));
        assert_eq!(find_proxied(&facts(Path::new("/none"), "192.0.2.2"), "", ""), []);
    }

    #[test]
    fn an_active_firewall_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let facts = facts(dir.path(), "192.0.2.2");
        assert_eq!(firewalld(&facts), []);
        std::fs::create_dir_all(dir.path().join("run")).unwrap();
        std::fs::write(dir.path().join("run/firewalld.pid"), "77\n").unwrap();
        assert_eq!(firewalld(&facts), [], "a file that was left behind");
        std::fs::create_dir_all(dir.path().join("proc/77")).unwrap();
        assert_eq!(
            firewalld(&facts)[0].warnings,
            [
                "firewalld is active, please ensure ports [6443 10250] are open or your cluster may not function correctly"
            ]
        );
        assert_eq!(firewalld(&CheckFacts { role: Role::Worker, ..facts }), []);
    }

    #[test]
    fn an_old_etcd_is_refused() {
        assert_eq!(judge_version("3.6.0"), None);
        assert_eq!(judge_version("3.4.23"), None);
        assert!(judge_version("3.3.23").unwrap().contains("only supports external etcd version >= 3.4.0"));
        assert!(judge_version("new").unwrap().contains("couldn't parse"));
        let etcd = ExternalEtcd { ca_file: "/none/ca.crt".to_owned(), ..ExternalEtcd::default() };
        assert_eq!(external_etcd_files(&etcd).errors, ["/none/ca.crt doesn't exist"]);
    }

    #[tokio::test]
    async fn an_etcd_that_does_not_answer_is_named() {
        let etcd = ExternalEtcd { endpoints: vec!["http://127.0.0.1:1".to_owned()], ..ExternalEtcd::default() };
        let result = external_etcd_version(&etcd).await;
        assert!(result.errors[0].starts_with("http://127.0.0.1:1/version: "), "{result:?}");
    }
}
