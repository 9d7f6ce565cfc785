//! What actions write and ask for, as texts.

use crate::action::Replace;
use crate::error::Error;

const QUOTA: &str = "--quota-backend-bytes";

pub(super) fn key_of(certificate: &str) -> String {
    format!("{}.key", certificate.strip_suffix(".crt").unwrap_or(certificate))
}

/// Milliseconds as `sleep` reads them.
pub(super) fn seconds(milliseconds: u32) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

/// Only settings that each network namespace has of its own: others belong to the whole machine.
pub(super) fn sysctl_path(name: &str) -> Result<String, Error> {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    match is_plain && name.starts_with("net.") {
        true => Ok(name.replace('.', "/")),
        false => Err(Error::Refused(format!("{name} is not a setting of the network"))),
    }
}

pub(super) fn edit(content: &str, replace: &[Replace]) -> Result<String, String> {
    replace.iter().try_fold(content.to_owned(), |text, one| match text.contains(&one.from) {
        true => Ok(text.replace(&one.from, &one.to)),
        false => Err(format!("{:?} is not in it", one.from)),
    })
}

pub(super) fn rules(table: &str, protocol: &str, port: u16, peer: Option<&str>) -> Result<String, Error> {
    if !matches!(protocol, "tcp" | "udp") {
        return Err(Error::Refused(format!("{protocol} has no ports")));
    }
    let peer = peer.map(|peer| peer.parse::<std::net::IpAddr>()).transpose();
    let peer = peer.map_err(|error| Error::Refused(format!("the peer of a blocked port: {error}")))?;
    let chain = |hook: &str, end: &str| {
        let family = |address: std::net::IpAddr| if address.is_ipv4() { "ip" } else { "ip6" };
        let of = peer.map(|address| format!("{} {end} {address} ", family(address))).unwrap_or_default();
        format!(
            "  chain {hook} {{ type filter hook {hook} priority -300; {of}{protocol} dport {port} drop; {of}{protocol} sport {port} drop; }}\n"
        )
    };
    Ok(format!("table inet {table} {{\n{}{}}}\n", chain("input", "saddr"), chain("output", "daddr")))
}

/// The manifest of an etcd with a quota of so many bytes.
pub(super) fn with_quota(manifest: &str, bytes: u64) -> Result<String, String> {
    if manifest.contains(QUOTA) {
        return Err("the store has a quota of its own there".to_owned());
    }
    let program = manifest.lines().find(|line| line.trim() == "- etcd").ok_or("no command `etcd` is in it")?;
    let indent = program.strip_suffix("- etcd").unwrap_or_default();
    Ok(manifest.replacen(&format!("{program}\n"), &format!("{program}\n{indent}- {QUOTA}={bytes}\n"), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_replaced_only_where_it_is_there() {
        let replace = |from: &str| vec![Replace { from: from.to_owned(), to: "x".to_owned() }];
        assert_eq!(edit("a b a", &replace("a")), Ok("x b x".to_owned()));
        assert!(edit("a b a", &replace("c")).is_err());
    }

    #[test]
    fn a_quota_is_a_flag_of_the_program_and_never_a_second_one() {
        let manifest = "spec:\n  containers:\n  - command:\n    - etcd\n    - --name=one\n";
        let limited = with_quota(manifest, 7).expect("it is one of an etcd");
        assert_eq!(limited, manifest.replace("- etcd\n", "- etcd\n    - --quota-backend-bytes=7\n"));
        assert!(with_quota(&limited, 7).is_err() && with_quota("- kube-scheduler\n", 7).is_err());
    }

    #[test]
    fn settings_of_the_whole_machine_are_refused() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward").expect("it is one"), "net/ipv4/ip_forward");
        for name in ["kernel.panic", "net.ipv4/../../kernel", "fs.inotify.max_user_instances"] {
            assert!(sysctl_path(name).is_err(), "{name}");
        }
    }

    #[test]
    fn rules_are_about_a_port_and_a_peer() {
        let text = rules("t", "tcp", 179, Some("10.0.0.1")).expect("it is right");
        assert!(text.contains("ip saddr 10.0.0.1 tcp dport 179 drop"), "{text}");
        assert!(rules("t", "tcp", 1, None).expect("it is right").contains("; tcp dport 1 drop"));
        assert!(rules("t", "icmp", 1, None).is_err() && rules("t", "tcp", 1, Some("x; drop")).is_err());
    }

    #[test]
    fn times_and_keys_are_written_as_others_read_them() {
        assert_eq!((seconds(50), seconds(1900)), ("0.050".to_owned(), "1.900".to_owned()));
        assert_eq!(key_of("/a/b.crt"), "/a/b.key");
    }
}
