//! The roles and bindings that every cluster starts with: upstream's names and powers.
//!
//! They are data in `policy.txt`, one role after the other. A line of a role is `verbs | groups | resources [| names]`,
//! or `verbs | url...` for paths; `core` is the core group and `events` stands for the right to record events.

use serde_json::{Value, json};

use crate::rule::PolicyRule;

const POLICY: &str = include_str!("policy.txt");
const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";

/// Every object of the bootstrap policy: `ClusterRole`, `ClusterRoleBinding`, `Role`, `RoleBinding`.
pub fn bootstrap_policy() -> Vec<Value> {
    let mut objects = Vec::new();
    for block in blocks() {
        objects.push(block.role());
        objects.extend(block.binding());
    }
    for (role, parts) in [("admin", &["admin", "edit", "view"][..]), ("edit", &["edit", "view"]), ("view", &["view"])] {
        objects.push(aggregated(role, parts));
    }
    objects.push(delegated_authentication());
    objects
}

/// The one binding that has another name than its role: components that are asked themselves read how clients prove who
/// they are.
fn delegated_authentication() -> Value {
    let subjects = ["user=system:kube-controller-manager", "user=system:kube-scheduler"].map(parse_subject);
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": metadata("kube-system", "system::extension-apiserver-authentication-reader"),
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "extension-apiserver-authentication-reader",
        },
        "subjects": subjects,
    })
}

/// The rules of the role `system:node`, which the node authorizer applies to every node.
pub(crate) fn node_rules() -> Vec<PolicyRule> {
    let node = blocks().into_iter().find(|block| block.name == "system:node");
    node.expect("the policy has the role system:node").rules
}

/// One role of the policy file with what it is bound to.
struct Block {
    namespace: &'static str,
    name: &'static str,
    subjects: Vec<Value>,
    aggregate_to: Option<&'static str>,
    rules: Vec<PolicyRule>,
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in POLICY.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            let block = blocks.last_mut().expect("a rule follows a role");
            block.rules.push(parse_rule(line));
        } else {
            blocks.push(parse_head(line));
        }
    }
    blocks
}

/// `name [in NAMESPACE] [to KIND:NAME...] [aggregate ROLE]`; the roles of controllers are bound to their accounts.
fn parse_head(line: &'static str) -> Block {
    let mut words = line.split_whitespace();
    let name = words.next().expect("a line that is not empty has a word");
    let mut block = Block { namespace: "", name, subjects: Vec::new(), aggregate_to: None, rules: Vec::new() };
    let mut mode = "";
    for word in words {
        match (mode, word) {
            (_, "in" | "to" | "aggregate") => mode = word,
            ("in", namespace) => block.namespace = namespace,
            ("aggregate", role) => block.aggregate_to = Some(role),
            (_, subject) => block.subjects.push(parse_subject(subject)),
        }
    }
    if let Some(account) = name.strip_prefix("system:controller:")
        && block.namespace.is_empty()
    {
        block.subjects.push(service_account(account));
    }
    block
}

fn parse_subject(text: &str) -> Value {
    let (kind, name) = text.split_once('=').expect("a subject is kind=name");
    match kind {
        "account" => service_account(name),
        "user" => json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name}),
        _ => json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": name}),
    }
}

fn service_account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": name})
}

fn parse_rule(line: &str) -> PolicyRule {
    if line.trim() == "events" {
        return parse_rule("create patch update | core events.k8s.io | events");
    }
    let columns: Vec<&str> = line.split('|').map(str::trim).collect();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let verbs = words(&columns[0].replace("READ", READ).replace("WRITE", WRITE));
    if columns[1].starts_with('/') || (columns.len() == 2 && columns[1] == "*") {
        return PolicyRule { verbs, non_resource_urls: words(columns[1]), ..PolicyRule::default() };
    }
    let group = |group: String| if group == "core" { String::new() } else { group };
    PolicyRule {
        verbs,
        api_groups: words(columns[1]).into_iter().map(group).collect(),
        resources: words(columns[2]),
        resource_names: columns.get(3).map(|names| words(names)).unwrap_or_default(),
        non_resource_urls: Vec::new(),
    }
}

fn metadata(namespace: &str, name: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

impl Block {
    fn role(&self) -> Value {
        let kind = if self.namespace.is_empty() { "ClusterRole" } else { "Role" };
        let mut role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": metadata(self.namespace, self.name), "rules": self.rules,
        });
        if let Some(target) = self.aggregate_to {
            role["metadata"]["labels"][aggregation_label(target)] = json!("true");
        }
        role
    }

    fn binding(&self) -> Option<Value> {
        if self.subjects.is_empty() && self.name != "system:node" {
            return None;
        }
        let (kind, role) = match self.namespace.is_empty() {
            true => ("ClusterRoleBinding", "ClusterRole"),
            false => ("RoleBinding", "Role"),
        };
        let mut binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": metadata(self.namespace, self.name),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": self.name},
        });
        if !self.subjects.is_empty() {
            binding["subjects"] = json!(self.subjects);
        }
        Some(binding)
    }
}

fn aggregation_label(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

/// A role that collects the rules of others by label. The rules stand in it from the start, so that it grants what it
/// should before the aggregation controller has run.
fn aggregated(role: &str, parts: &[&str]) -> Value {
    let blocks = blocks();
    let rules: Vec<&PolicyRule> = blocks
        .iter()
        .filter(|block| block.aggregate_to.is_some_and(|target| parts.contains(&target)))
        .flat_map(|block| &block.rules)
        .collect();
    let selectors: Vec<Value> =
        parts[..1].iter().map(|part| json!({"matchLabels": {aggregation_label(part): "true"}})).collect();
    let mut object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": metadata("", role), "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": rules,
    });
    // `edit` is part of `admin` and `view` part of `edit`, by the same label.
    if let Some(target) = match role {
        "edit" => Some("admin"),
        "view" => Some("edit"),
        _ => None,
    } {
        object["metadata"]["labels"][aggregation_label(target)] = json!("true");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(kind: &str, name: &str) -> Value {
        let objects = bootstrap_policy();
        let found = objects.into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    #[test]
    fn the_policy_reads_as_meant() {
        let admin = find("ClusterRole", "cluster-admin");
        assert_eq!(admin["rules"][0], json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        assert_eq!(admin["rules"][1], json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        let binding = find("ClusterRoleBinding", "cluster-admin");
        assert_eq!(binding["subjects"][0]["name"], "system:masters");
        let job = find("ClusterRoleBinding", "system:controller:job-controller");
        assert_eq!(job["subjects"][0], service_account("job-controller"));
        assert!(find("ClusterRoleBinding", "system:node").get("subjects").is_none());
        let edit = find("ClusterRole", "edit");
        assert_eq!(edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
        assert!(edit["rules"].as_array().unwrap().len() > 5);
    }

    #[test]
    fn every_name_stands_once() {
        let mut seen = std::collections::HashSet::new();
        for object in bootstrap_policy() {
            let metadata = &object["metadata"];
            let key = format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"]);
            assert!(seen.insert(key.clone()), "{key} stands twice");
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }
}
