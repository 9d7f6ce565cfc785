//! How far nodes have followed their authority's replacement, by what they say of themselves.
//!
//! Pure but for the list. Invariant: a node that says nothing has not followed.

use k8s_openapi::api::core::v1::Node;
use kedge_bootstrap::{SIGNER_ANNOTATION, TRUSTED_ANNOTATION};
use kedge_client::Client;
use kube::Api;
use kube::api::ListParams;

use super::RotationError;

const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";

/// The nodes that do not trust the authority with this pin.
pub(super) async fn without_trust(client: &Client, pin: &str) -> Result<Vec<String>, RotationError> {
    Ok(names(&list(client).await?, |node| !trusted(node).any(|trusted| trusted == pin)))
}

/// The nodes whose certificate it has not signed.
pub(super) async fn without_certificate(client: &Client, pin: &str) -> Result<Vec<String>, RotationError> {
    Ok(names(&list(client).await?, |node| annotation(node, SIGNER_ANNOTATION) != pin))
}

/// How many nodes are control planes.
pub(super) async fn control_planes(client: &Client) -> Result<usize, RotationError> {
    Ok(list(client).await?.iter().filter(|node| is_control_plane(node)).count())
}

/// The control planes that have the key of the authority with this pin.
pub(super) async fn control_planes_with_key(client: &Client, pin: &str) -> Result<Vec<String>, RotationError> {
    Ok(names(&list(client).await?, |node| is_control_plane(node) && own(node) == pin))
}

/// The control planes that have not.
pub(super) async fn control_planes_without_key(client: &Client, pin: &str) -> Result<Vec<String>, RotationError> {
    Ok(names(&list(client).await?, |node| is_control_plane(node) && own(node) != pin))
}

/// A line about each node.
pub(super) async fn lines(client: &Client, pins: &[String]) -> Result<Vec<String>, RotationError> {
    Ok(list(client).await?.iter().map(|node| line(node, pins)).collect())
}

async fn list(client: &Client) -> Result<Vec<Node>, RotationError> {
    let listed = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    Ok(listed.map_err(|error| RotationError::List(Box::new(error)))?.items)
}

fn annotation<'a>(node: &'a Node, name: &str) -> &'a str {
    let found = node.metadata.annotations.as_ref().and_then(|annotations| annotations.get(name));
    found.map(String::as_str).unwrap_or_default()
}

fn trusted(node: &Node) -> impl Iterator<Item = &str> {
    annotation(node, TRUSTED_ANNOTATION).split(',').filter(|pin| !pin.is_empty())
}

fn is_control_plane(node: &Node) -> bool {
    node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(CONTROL_PLANE_LABEL))
}

/// The first that it trusts: on a control plane, that whose key it has.
fn own(node: &Node) -> &str {
    trusted(node).next().unwrap_or_default()
}

fn name(node: &Node) -> String {
    node.metadata.name.clone().unwrap_or_default()
}

fn names(nodes: &[Node], is_behind: impl Fn(&Node) -> bool) -> Vec<String> {
    nodes.iter().filter(|node| is_behind(node)).map(name).collect()
}

fn line(node: &Node, pins: &[String]) -> String {
    let known = pins.iter().filter(|pin| trusted(node).any(|trusted| trusted == pin.as_str())).count();
    let signer = annotation(node, SIGNER_ANNOTATION);
    let shows = match pins.iter().position(|pin| pin == signer) {
        Some(0) => "shows a certificate of the one that signs",
        Some(_) => "shows a certificate of the other",
        None => "does not say whose certificate it shows",
    };
    let role = match is_control_plane(node) && pins.len() > 1 {
        true if pins.first().is_some_and(|pin| pin == own(node)) => {
            "; a control plane with the key of the one that signs"
        }
        true => "; a control plane with the key of the other",
        false => "",
    };
    format!("node/{}: trusts {known} of {}, {shows}{role}", name(node), pins.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_has_not_followed() {
        let node = |name: &str, said: Option<(&str, &str)>| {
            let mut node = Node::default();
            node.metadata.name = Some(name.to_owned());
            node.metadata.annotations = said.map(|(trusted, signer)| {
                [(TRUSTED_ANNOTATION, trusted), (SIGNER_ANNOTATION, signer)]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into()
            });
            node
        };
        let nodes = [node("a", Some(("new,old", "new"))), node("b", Some(("old", "old"))), node("c", None)];
        assert_eq!(names(&nodes, |node| !trusted(node).any(|pin| pin == "new")), ["b", "c"]);
        assert_eq!(names(&nodes, |node| annotation(node, SIGNER_ANNOTATION) != "new"), ["b", "c"]);
        let mut planes = [node("d", Some(("new,old", "new"))), node("e", Some(("old,new", "new")))];
        for plane in &mut planes {
            plane.metadata.labels = Some([(CONTROL_PLANE_LABEL.to_owned(), String::new())].into());
        }
        assert_eq!(names(&planes, |node| is_control_plane(node) && own(node) != "new"), ["e"]);
        assert!(!nodes.iter().any(is_control_plane));
        let pins = ["new", "old"].map(str::to_owned);
        assert!(line(&planes[0], &pins).ends_with("; a control plane with the key of the one that signs"));
        assert!(line(&planes[1], &pins).ends_with("; a control plane with the key of the other"));
        assert_eq!(line(&nodes[0], &pins), "node/a: trusts 2 of 2, shows a certificate of the one that signs");
        assert_eq!(line(&nodes[1], &pins), "node/b: trusts 1 of 2, shows a certificate of the other");
        assert_eq!(line(&nodes[2], &pins), "node/c: trusts 0 of 2, does not say whose certificate it shows");
    }
}
