//! From an action on objects of the API to patches: whether it still has something to do, what it changes, what undoes it.
//!
//! Invariant: a patch is for the object as it was shown: one that changed since is refused by the API.

use jiff::Timestamp;
use kedge_diagnosis::Action;
use serde_json::{Value, json};
use similar::TextDiff;

use crate::host::{Access, Host};
use crate::operation::Operation;
use crate::plan::{CONTEXT_LINES, NotPossible, Parts, settled};

const COREFILE: &str = "/api/v1/namespaces/kube-system/configmaps/coredns";
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// The plan of an action on objects; nothing for one on a machine.
pub(crate) fn plan(action: &Action, host: &Host) -> Option<Result<Parts, NotPossible>> {
    let change: fn(&Action, &Value) -> Result<Change, NotPossible> = match action {
        Action::Uncordon { .. } => uncordon,
        Action::RemoveTaint { .. } => remove_taint,
        Action::ReplaceDirective { .. } => replace_directive,
        Action::RestartDeployment { .. } => restart,
        _ => return None,
    };
    let missing = || NotPossible::Missing(format!("to {action} takes a cluster that answers"));
    Some(host.access().ok_or_else(missing).and_then(|access| {
        let path = path(action);
        let object = access.get(&path).map_err(|why| NotPossible::Missing(format!("{path}: {why}")))?;
        let object = object.ok_or_else(|| settled(format!("{path} is gone")))?;
        change(action, &object).map(|change| parts(access, path, &object, change))
    }))
}

/// The fields that change, and the same as they were; what is shown of both.
struct Change {
    to: Value,
    back: Value,
    before: String,
    after: String,
}

fn path(action: &Action) -> String {
    match action {
        Action::Uncordon { node } | Action::RemoveTaint { node, .. } => format!("/api/v1/nodes/{node}"),
        Action::RestartDeployment { namespace, name } => {
            format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        }
        _ => COREFILE.to_owned(),
    }
}

fn parts(access: &dyn Access, path: String, object: &Value, change: Change) -> Parts {
    let Change { mut to, back, before, after } = change;
    let preview = TextDiff::from_lines(&before, &after)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&path, &path)
        .to_string();
    to["metadata"] = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
    let server = access.server().to_owned();
    let undo = Operation::Patch { server: server.clone(), path: path.clone(), patch: back };
    (preview, vec![Operation::Patch { server, path, patch: to }], vec![undo])
}

fn yaml(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default()
}

fn uncordon(_: &Action, node: &Value) -> Result<Change, NotPossible> {
    if node["spec"]["unschedulable"] != true {
        return Err(settled("the node takes pods".to_owned()));
    }
    Ok(Change {
        to: json!({"spec": {"unschedulable": null}}),
        back: json!({"spec": {"unschedulable": true}}),
        before: "unschedulable: true\n".to_owned(),
        after: String::new(),
    })
}

fn remove_taint(action: &Action, node: &Value) -> Result<Change, NotPossible> {
    let Action::RemoveTaint { key, .. } = action else { return Err(settled(String::new())) };
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    if !conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True") {
        return Err(NotPossible::Missing(format!("the node is not ready, so {key} stays")));
    }
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let left: Vec<Value> = taints.iter().filter(|taint| taint["key"] != key.as_str()).cloned().collect();
    if left.len() == taints.len() {
        return Err(settled(format!("the node has no taint {key}")));
    }
    Ok(Change {
        before: yaml(&json!({"taints": taints})),
        after: yaml(&json!({"taints": left})),
        to: json!({"spec": {"taints": left}}),
        back: json!({"spec": {"taints": taints}}),
    })
}

fn replace_directive(action: &Action, map: &Value) -> Result<Change, NotPossible> {
    let Action::ReplaceDirective { from, to } = action else { return Err(settled(String::new())) };
    let before = map["data"]["Corefile"].as_str().unwrap_or_default().to_owned();
    let line = |line: &str| {
        let words = line.trim_start();
        match words.strip_prefix(from.as_str()) {
            Some(rest) if rest.is_empty() || rest.starts_with(char::is_whitespace) => {
                format!("{}{to}{rest}", &line[..line.len() - words.len()])
            }
            _ => line.to_owned(),
        }
    };
    let after: String = before.split_inclusive('\n').map(line).collect();
    if after == before {
        return Err(settled(format!("the Corefile has no {from}")));
    }
    Ok(Change { to: json!({"data": {"Corefile": after}}), back: json!({"data": {"Corefile": before}}), before, after })
}

fn restart(_: &Action, deployment: &Value) -> Result<Change, NotPossible> {
    let fields = |value: &Value| json!({"spec": {"template": {"metadata": {"annotations": {(RESTARTED): value}}}}});
    let before = &deployment["spec"]["template"]["metadata"]["annotations"][RESTARTED];
    let now = json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let shown = |value: &Value| value.as_str().map(|time| format!("{RESTARTED}: {time}\n")).unwrap_or_default();
    Ok(Change { to: fields(&now), back: fields(before), before: shown(before), after: shown(&now) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use kedge_lifecycle::HostLayout;

    /// A cluster of one object.
    struct One(Mutex<Value>);

    fn merge(object: &mut Value, patch: &Value) {
        let Some(fields) = patch.as_object() else { return *object = patch.clone() };
        for (name, value) in fields {
            match value {
                Value::Null => drop(object.as_object_mut().and_then(|object| object.remove(name))),
                value => merge(&mut object[name], value),
            }
        }
    }

    impl Access for One {
        fn server(&self) -> &str {
            "https://192.0.2.1:6443"
        }

        fn get(&self, _: &str) -> Result<Option<Value>, String> {
            Ok(Some(self.0.lock().expect("nobody panicked").clone()))
        }

        fn patch(&self, _: &str, patch: &Value) -> Result<(), String> {
            let mut object = self.0.lock().expect("nobody panicked");
            let version = &patch["metadata"]["resourceVersion"];
            if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
                return Err("the object has been modified".to_owned());
            }
            merge(&mut object, patch);
            Ok(())
        }

        fn keep_kubelet(&self, _: bool) -> Result<(), String> {
            Ok(())
        }
    }

    /// What an action shows; done, its plan has nothing left to do; undone, the object is as it was.
    fn there_and_back(mut object: Value, action: &Action) -> String {
        object["metadata"] = json!({"resourceVersion": "7"});
        let cluster = Arc::new(One(Mutex::new(object.clone())));
        let host = Host::new(HostLayout::default()).with_access(cluster.clone()).elsewhere();
        let (preview, operations, undo) =
            plan(action, &host).expect("it is of the API").expect("there is something to do");
        for operation in &operations {
            host.execute(operation).expect("it is done");
        }
        assert_ne!(*cluster.0.lock().expect("nobody panicked"), object);
        if !matches!(action, Action::RestartDeployment { .. }) {
            assert!(matches!(plan(action, &host), Some(Err(NotPossible::Settled(_)))));
        }
        for operation in &undo {
            host.execute(operation).expect("it is undone");
        }
        assert_eq!(*cluster.0.lock().expect("nobody panicked"), object);
        preview
    }

    fn node(ready: &str) -> Value {
        json!({"spec": {"unschedulable": true, "taints": [{"key": "a"}, {"key": "node.kubernetes.io/out-of-service"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn objects_are_changed_and_come_back() {
        let own = |text: &str| text.to_owned();
        let preview = there_and_back(node("True"), &Action::Uncordon { node: own("one") });
        assert!(preview.contains("-unschedulable: true"), "{preview}");
        let key = own("node.kubernetes.io/out-of-service");
        let preview = there_and_back(node("True"), &Action::RemoveTaint { node: own("one"), key });
        assert!(preview.contains("-- key: node.kubernetes.io/out-of-service"), "{preview}");
        let corefile = json!({"data": {"Corefile": ".:53 {\n    proxy . /etc/resolv.conf\n    proxying x\n}\n"}});
        let preview = there_and_back(corefile, &Action::ReplaceDirective { from: own("proxy"), to: own("forward") });
        assert!(
            preview.contains("+    forward . /etc/resolv.conf") && !preview.contains("+    forwarding"),
            "{preview}"
        );
        let deployment =
            json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED: "2026-01-01T00:00:00Z"}}}}});
        there_and_back(deployment, &Action::RestartDeployment { namespace: own("kube-system"), name: own("coredns") });
    }

    #[test]
    fn what_is_not_proven_or_changed_meanwhile_stays() {
        let cluster = Arc::new(One(Mutex::new(node("Unknown"))));
        let host = Host::new(HostLayout::default()).with_access(cluster.clone());
        let taint = Action::RemoveTaint { node: "one".to_owned(), key: "node.kubernetes.io/out-of-service".to_owned() };
        assert!(matches!(plan(&taint, &host), Some(Err(NotPossible::Missing(_)))));
        cluster.0.lock().expect("nobody panicked")["metadata"] = json!({"resourceVersion": "7"});
        let uncordon = Action::Uncordon { node: "one".to_owned() };
        let (_, operations, _) = plan(&uncordon, &host).expect("it is of the API").expect("there is something to do");
        cluster.0.lock().expect("nobody panicked")["metadata"]["resourceVersion"] = json!("8");
        assert!(host.execute(&operations[0]).is_err());
        let Operation::Patch { path, patch, .. } = operations[0].clone() else { panic!("it is a patch") };
        let other = Operation::Patch { server: "https://192.0.2.2:6443".to_owned(), path, patch };
        let refused = host.execute(&other).expect_err("it is another cluster").to_string();
        assert!(refused.contains("192.0.2.2"), "{refused}");
    }
}
