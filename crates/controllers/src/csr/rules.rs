//! Which certificate requests are of the form that their signer allows.
//!
//! Pure. The texts are what a refused request's `Failed` condition says.

use crate::config::RequestedIdentity;

pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// What does not say for what it is; anything that was approved is signed.
pub(crate) const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// Whether a signer is one of ours.
pub(crate) fn is_ours(signer_name: &str) -> bool {
    matches!(signer_name, CLIENT | KUBELET_CLIENT | KUBELET_SERVING | LEGACY_UNKNOWN)
}

/// Whether a request may be signed under its signer; an error says why not.
pub(crate) fn check(signer_name: &str, identity: &RequestedIdentity, usages: &[String]) -> Result<(), String> {
    match signer_name {
        CLIENT => check_client_usages(usages),
        LEGACY_UNKNOWN => Ok(()),
        KUBELET_CLIENT => {
            check_kubelet_client(identity)?;
            Ok(check_usages(usages, "client auth")?)
        }
        KUBELET_SERVING => {
            check_node(identity)?;
            if identity.dns_names.is_empty() && identity.ip_addresses.is_empty() {
                return Err("DNS or IP subjectAltName is required".to_owned());
            }
            Ok(check_usages(usages, "server auth")?)
        }
        _ => Err("the signer is not served here".to_owned()),
    }
}

fn check_kubelet_client(identity: &RequestedIdentity) -> Result<(), &'static str> {
    check_node(identity)?;
    if !identity.dns_names.is_empty() {
        return Err("DNS subjectAltNames are not allowed");
    }
    if !identity.ip_addresses.is_empty() {
        return Err("IP subjectAltNames are not allowed");
    }
    Ok(())
}

fn check_client_usages(usages: &[String]) -> Result<(), String> {
    let is_optional = |usage: &String| usage == "digital signature" || usage == "key encipherment";
    match usages.iter().find(|usage| *usage != "client auth" && !is_optional(usage)) {
        Some(other) => Err(format!("invalid usage for client certificate: {other}")),
        None if usages.iter().any(|usage| usage == "client auth") => Ok(()),
        None => Err("missing required usage for client certificate: client auth".to_owned()),
    }
}

fn check_node(identity: &RequestedIdentity) -> Result<(), &'static str> {
    if identity.organizations != [NODES] {
        return Err("subject organization is not system:nodes");
    }
    if !identity.common_name.starts_with(NODE_PREFIX) {
        return Err("subject common name does not begin with system:node:");
    }
    if !identity.email_addresses.is_empty() {
        return Err("Email subjectAltNames are not allowed");
    }
    if !identity.uris.is_empty() {
        return Err("URI subjectAltNames are not allowed");
    }
    Ok(())
}

fn check_usages(usages: &[String], needed: &str) -> Result<(), &'static str> {
    let is_allowed = |usage: &String| usage == needed || usage == "digital signature" || usage == "key encipherment";
    match usages.iter().all(is_allowed) && usages.iter().any(|usage| usage == needed) {
        true => Ok(()),
        false if needed == "client auth" => {
            Err("usages did not match [client auth digital signature key encipherment]")
        }
        false => Err("usages did not match [digital signature key encipherment server auth]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_form_of_their_signer() {
        let node = |change: fn(&mut RequestedIdentity)| {
            let mut identity = RequestedIdentity {
                common_name: "system:node:a".to_owned(),
                organizations: vec![NODES.to_owned()],
                ..RequestedIdentity::default()
            };
            change(&mut identity);
            identity
        };
        let test = |signer: &str, identity: RequestedIdentity, usages: &[&str], expected: Result<(), &str>| {
            let usages: Vec<String> = usages.iter().map(|&usage| usage.to_owned()).collect();
            assert_eq!(check(signer, &identity, &usages), expected.map_err(str::to_owned));
        };
        let client = ["digital signature", "client auth"];
        let server = ["digital signature", "server auth"];
        test(KUBELET_CLIENT, node(|_| {}), &client, Ok(()));
        test(
            KUBELET_CLIENT,
            node(|identity| identity.common_name = "admin".to_owned()),
            &client,
            Err("subject common name does not begin with system:node:"),
        );
        test(
            KUBELET_CLIENT,
            node(|identity| identity.dns_names.push("a".to_owned())),
            &client,
            Err("DNS subjectAltNames are not allowed"),
        );
        test(
            KUBELET_CLIENT,
            node(|_| {}),
            &server,
            Err("usages did not match [client auth digital signature key encipherment]"),
        );
        test(KUBELET_SERVING, node(|_| {}), &server, Err("DNS or IP subjectAltName is required"));
        test(KUBELET_SERVING, node(|identity| identity.ip_addresses.push("10.0.0.1".to_owned())), &server, Ok(()));
        test(CLIENT, RequestedIdentity::default(), &client, Ok(()));
        let wrong = Err("invalid usage for client certificate: server auth");
        test(CLIENT, RequestedIdentity::default(), &server, wrong);
        let missing = Err("missing required usage for client certificate: client auth");
        test(CLIENT, RequestedIdentity::default(), &["key encipherment"], missing);
        test(LEGACY_UNKNOWN, RequestedIdentity::default(), &["code signing"], Ok(()));
        test("example.com/x", RequestedIdentity::default(), &client, Err("the signer is not served here"));
    }
}
