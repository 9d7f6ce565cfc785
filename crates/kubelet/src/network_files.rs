//! What a pod sees of names: its host name, its resolver configuration and its `/etc/hosts`.
//!
//! Pure; files are read and written by the caller. Invariant: limits on search domains and name servers are glibc's, as
//! upstream applies them.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod};
use kedge_cri::v1;

use crate::spec;

const MAX_NAME_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_HOST_NAME: usize = 63;

/// The host name and, where the pod has a subdomain, its domain.
pub(crate) fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let pod_spec = spec::pod_spec(pod);
    if let Some(name) = pod_spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (name.to_owned(), String::new());
    }
    let name = pod_spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(spec::name(pod));
    let name = name.get(..MAX_HOST_NAME).unwrap_or(name).trim_end_matches(['-', '.']).to_owned();
    let domain = match pod_spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{}.svc.{cluster_domain}", spec::namespace(pod)),
        None => String::new(),
    };
    (name, domain)
}

/// The name that the sandbox is given: fully qualified where the pod asks for it. Too long names are an error.
pub(crate) fn sandbox_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let (name, domain) = hostname_and_domain(pod, cluster_domain);
    if !spec::pod_spec(pod).set_hostname_as_fqdn.unwrap_or(false) || domain.is_empty() {
        return Ok(name);
    }
    let full = format!("{name}.{domain}");
    if full.len() > 64 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long (64 characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// A resolver configuration as in `/etc/resolv.conf`.
pub(crate) fn parse_resolv_conf(text: &str) -> v1::DnsConfig {
    let mut config = v1::DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.next()),
            Some("search" | "domain") => config.searches = words.collect(),
            Some("options") => config.options = words.collect(),
            _ => {}
        }
    }
    config
}

/// The resolver configuration of a pod.
pub(crate) fn dns_config(
    pod: &Pod,
    host: &v1::DnsConfig,
    cluster_dns: &[IpAddr],
    cluster_domain: &str,
) -> v1::DnsConfig {
    let pod_spec = spec::pod_spec(pod);
    let mut config = match pod_spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => v1::DnsConfig::default(),
        "Default" => host.clone(),
        // On the host's network, only ClusterFirstWithHostNet asks the cluster DNS.
        "ClusterFirst" if spec::host_network(pod) => host.clone(),
        // Without a cluster DNS, upstream falls back to the host's resolver too.
        _ if cluster_dns.is_empty() => host.clone(),
        _ => cluster_first(pod, host, cluster_dns, cluster_domain),
    };
    if let Some(own) = &pod_spec.dns_config {
        extend_unique(&mut config.servers, own.nameservers.iter().flatten().cloned());
        extend_unique(&mut config.searches, own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            config.options.retain(|known| known.split(':').next() != Some(&name));
            config.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name,
            });
        }
    }
    config.servers.truncate(MAX_NAME_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    config
}

fn cluster_first(pod: &Pod, host: &v1::DnsConfig, cluster_dns: &[IpAddr], cluster_domain: &str) -> v1::DnsConfig {
    let mut searches = Vec::new();
    if !cluster_domain.is_empty() {
        let namespace = spec::namespace(pod);
        searches = vec![
            format!("{namespace}.svc.{cluster_domain}"),
            format!("svc.{cluster_domain}"),
            cluster_domain.to_owned(),
        ];
    }
    extend_unique(&mut searches, host.searches.iter().cloned());
    v1::DnsConfig {
        servers: cluster_dns.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

fn extend_unique(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// The managed `/etc/hosts` of a pod with its own network.
pub(crate) fn hosts_file(pod_ips: &[String], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in pod_ips {
        match domain.is_empty() {
            true => text.push_str(&format!("{ip}\t{hostname}\n")),
            false => text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n")),
        }
    }
    text + &alias_entries(aliases)
}

/// The managed `/etc/hosts` of a pod on the host's network.
pub(crate) fn host_network_hosts_file(hosts: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{hosts}{}", alias_entries(aliases))
}

fn alias_entries(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodDNSConfig, PodDNSConfigOption, PodSpec};

    use super::*;

    fn pod(spec: PodSpec) -> Pod {
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        pod.metadata.name = Some("web-0".to_owned());
        pod.metadata.namespace = Some("shop".to_owned());
        pod
    }

    #[test]
    fn dns_policies() {
        let host = parse_resolv_conf(
            "# made\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch example.org\noptions timeout:1\n",
        );
        let check = |policy: Option<&str>, host_network: bool, own: Option<PodDNSConfig>, expected: &str| {
            let pod = pod(PodSpec {
                dns_policy: policy.map(str::to_owned),
                host_network: Some(host_network),
                dns_config: own,
                ..PodSpec::default()
            });
            let got = dns_config(&pod, &host, &["10.96.0.10".parse().unwrap()], "cluster.local");
            let text = format!("{} | {} | {}", got.servers.join(" "), got.searches.join(" "), got.options.join(" "));
            assert_eq!(text, expected);
        };
        let cluster = "10.96.0.10 | shop.svc.cluster.local svc.cluster.local cluster.local example.org | ndots:5";
        let from_host = "192.0.2.1 192.0.2.2 | example.org | timeout:1";
        check(None, false, None, cluster);
        check(Some("ClusterFirst"), true, None, from_host);
        check(Some("ClusterFirstWithHostNet"), true, None, cluster);
        check(Some("Default"), false, None, from_host);
        let own = PodDNSConfig {
            nameservers: Some(vec!["192.0.2.9".to_owned()]),
            searches: Some(vec!["my.test".to_owned()]),
            options: Some(vec![PodDNSConfigOption { name: Some("ndots".to_owned()), value: Some("2".to_owned()) }]),
        };
        check(Some("None"), false, Some(own), "192.0.2.9 | my.test | ndots:2");
    }

    #[test]
    fn host_names() {
        let check = |spec: PodSpec, expected: Result<&str, ()>| {
            let got = sandbox_hostname(&pod(spec), "cluster.local");
            assert_eq!(got.as_deref().map_err(|_| ()), expected);
        };
        check(PodSpec::default(), Ok("web-0"));
        check(PodSpec { hostname: Some("db".to_owned()), ..PodSpec::default() }, Ok("db"));
        let full =
            PodSpec { subdomain: Some("sub".to_owned()), set_hostname_as_fqdn: Some(true), ..PodSpec::default() };
        check(full.clone(), Ok("web-0.sub.shop.svc.cluster.local"));
        check(PodSpec { hostname: Some("x".repeat(60)), ..full }, Err(()));
    }

    #[test]
    fn managed_hosts_files() {
        let alias = HostAlias { ip: "1.2.3.4".to_owned(), hostnames: Some(vec!["a".to_owned(), "b".to_owned()]) };
        let text = hosts_file(&["10.0.0.1".to_owned()], "web-0", "sub.shop.svc.cluster.local", &[alias]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with(
            "10.0.0.1\tweb-0.sub.shop.svc.cluster.local\tweb-0\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        ));
    }
}
