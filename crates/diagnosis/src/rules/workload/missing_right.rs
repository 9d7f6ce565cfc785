//! W8: a program asks the API for something that its ServiceAccount may not have.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::signs::{Sign, is_down};
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &[],
    words: &[
        &["is forbidden: User \"system:serviceaccount:", " cannot "],
        &["is forbidden: User \\\"system:serviceaccount:", " cannot "],
    ],
    over: &["successfully acquired lease"],
};

pub(super) const RULE: Rule = Rule {
    id: "W8",
    title: "a ServiceAccount lacks a right that its program needs",
    layer: Layer::Workload,
    explains: &[Explains { ids: &["W1", "W5"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for told in SIGN.told(evidence) {
        // Said once by who goes on without: at a start, before the roles are there, or of what is not needed.
        if told.count < 2 && !is_down(evidence, &told.item.place, told.source) {
            continue;
        }
        let subject = told.source.subject();
        let sentence = match refusal(told.text) {
            Some(refusal) => format!("{subject} is refused: {refusal}"),
            None => format!("{subject} is refused: {}", told.text.trim()),
        };
        let repair = repair(told.text);
        found.push(Finding::failure(subject, told.item, Certainty::Likely, sentence, told.lines, repair));
    }
    found
}

/// What the API server refused.
struct Refusal<'a> {
    /// Namespace of the account.
    namespace: &'a str,
    /// Name of the account.
    account: &'a str,
    /// What it wants to do.
    verb: &'a str,
    /// With which resource, and subresource.
    resource: &'a str,
    /// Of which group; empty for the core.
    group: &'a str,
    /// Where; empty for the whole cluster.
    within: &'a str,
}

impl std::fmt::Display for Refusal<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { namespace, account, verb, within, .. } = self;
        write!(formatter, "ServiceAccount {namespace}/{account} may not {verb} {}", self.qualified())?;
        if within.is_empty() {
            write!(formatter, " in the cluster")
        } else {
            write!(formatter, " in namespace {within}")
        }
    }
}

impl Refusal<'_> {
    /// The resource with its group, as kubectl takes it.
    fn qualified(&self) -> String {
        match (self.group, self.resource.split_once('/')) {
            ("", _) => self.resource.to_owned(),
            (group, Some((resource, part))) => format!("{resource}.{group}/{part}"),
            (group, None) => format!("{}.{group}", self.resource),
        }
    }
}

/// Reads the API server's sentence within a line: `User "…" cannot VERB resource "…" in API group "…" in the namespace "…"`.
fn refusal(line: &str) -> Option<Refusal<'_>> {
    let (_, rest) = line.split_once("system:serviceaccount:")?;
    let (user, rest) = quoted(rest)?;
    let (namespace, account) = user.split_once(':')?;
    let (verb, rest) = rest.trim_start().strip_prefix("cannot ")?.split_once(" resource ")?;
    let (resource, rest) = quoted(opened(rest)?)?;
    let (group, rest) = match rest.trim_start().strip_prefix("in API group ") {
        Some(rest) => quoted(opened(rest)?)?,
        None => ("", rest),
    };
    let within = rest.trim_start().strip_prefix("in the namespace ").and_then(opened).and_then(quoted);
    Some(Refusal { namespace, account, verb, resource, group, within: within.map_or("", |(within, _)| within) })
}

/// What follows an opening quotation mark, which a log may have escaped.
fn opened(text: &str) -> Option<&str> {
    text.trim_start_matches('\\').strip_prefix('"')
}

/// What stands before the closing quotation mark, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (inner, rest) = text.split_once('"')?;
    Some((inner.trim_end_matches('\\'), rest))
}

fn repair(line: &str) -> Repair {
    let Some(refusal) = refusal(line) else {
        return Repair::of(&[(
            "See what it may do",
            "kubectl auth can-i --list --as=system:serviceaccount:NAMESPACE:NAME",
        )]);
    };
    let Refusal { namespace, account, verb, within, .. } = refusal;
    let resource = refusal.qualified();
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let place = if within.is_empty() { String::new() } else { format!(" -n {within}") };
    let role = if within.is_empty() { "clusterrole" } else { "role" };
    let name = format!("{account}-{}", refusal.resource.replace('/', "-"));
    Repair::of(&[
        ("See whether it still may not", &format!("kubectl auth can-i {verb} {resource}{place} --as={user}")),
        (
            "See what it was given: is a binding missing, or of another account or namespace?",
            &format!("kubectl get rolebindings,clusterrolebindings -A -o wide | grep {account}"),
        ),
        (
            "If it should have the right: install its roles again, or give it",
            &format!(
                "kubectl create {role} {name}{place} --verb={verb} --resource={resource} && kubectl create {role}binding {name}{place} --{role}={name} --serviceaccount={namespace}:{account}"
            ),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    /// A line that is said again and again.
    fn lines(text: &str) -> Vec<Item> {
        vec![container_logged("manager", text); 2]
    }

    #[test]
    fn a_refused_account_is_found() {
        let lease = r#"E0722 10:00:00.000000       1 leaderelection.go:330] error retrieving resource lock vendor/manager: leases.coordination.k8s.io "manager" is forbidden: User "system:serviceaccount:vendor:default" cannot get resource "leases" in API group "coordination.k8s.io" in the namespace "vendor""#;
        let texts = found_among(&RULE, lines(lease));
        assert_eq!(texts.len(), 1);
        assert!(
            texts[0].ends_with(
                "is refused: ServiceAccount vendor/default may not get leases.coordination.k8s.io in namespace vendor"
            ),
            "{texts:?}"
        );
        let list = r#"E0722 10:00:00.000000       1 reflector.go:200] "Failed to watch" err="failed to list *v1.Service: services is forbidden: User \"system:serviceaccount:kube-system:coredns\" cannot list resource \"services\" in API group \"\" at the cluster scope""#;
        let texts = found_among(&RULE, lines(list));
        assert!(
            texts[0].ends_with("is refused: ServiceAccount kube-system/coredns may not list services in the cluster"),
            "{texts:?}"
        );
        let cut = r#"services is forbidden: User "system:serviceaccount:a:b" cannot li"#;
        assert_eq!(found_among(&RULE, lines(cut)).len(), 1);
    }

    #[test]
    fn the_commands_name_the_right() {
        let lines = lines(
            r#"pods "web" is forbidden: User "system:serviceaccount:a:robot" cannot create resource "pods/exec" in API group "" in the namespace "b""#,
        );
        let evidence = Evidence { gathered: now(), items: lines.into(), unseen: Vec::new() };
        let found = findings(&RULE, &evidence);
        let repair = serde_json::to_string(&found[0].repair).expect("it is JSON");
        for part in [
            "kubectl auth can-i create pods/exec -n b --as=system:serviceaccount:a:robot",
            "kubectl create role robot-pods-exec -n b --verb=create --resource=pods/exec",
            "kubectl create rolebinding robot-pods-exec -n b --role=robot-pods-exec --serviceaccount=a:robot",
        ] {
            assert!(repair.contains(part), "{repair}");
        }
    }

    #[test]
    fn other_refusals_are_not_nor_one_that_is_over() {
        for text in [
            r#"pods "web-1" is forbidden: exceeded quota: q"#,
            r#"nodes "one" is forbidden: User "system:node:two" cannot get resource "nodes""#,
            r#"pods is forbidden: User "jane" cannot list resource "pods""#,
        ] {
            assert_eq!(found_among(&RULE, lines(text)), [""; 0]);
        }
        let refused = r#"leases "m" is forbidden: User "system:serviceaccount:a:b" cannot get resource "leases""#;
        let over = [lines(refused), lines("successfully acquired lease a/m")].concat();
        assert_eq!(found_among(&RULE, over), [""; 0]);
        assert_eq!(found_among(&RULE, lines(refused).into_iter().take(1)), [""; 0]);
    }
}
