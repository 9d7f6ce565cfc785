//! What `kubectl describe` prints, as objects and their events: only what the text says.
//!
//! Pure. A description begins at `Name:` in the first column and ends before the next.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kedge_diagnosis::{Fact, Item, Place};
use serde_json::{Value, json};

use crate::tables::age;

/// Whether a line begins a description.
pub(crate) fn is_start(line: &str) -> bool {
    line.strip_prefix("Name:").is_some_and(|rest| rest.starts_with(' ') && !rest.trim().is_empty())
}

/// The object that lines describe, and its events.
pub(crate) fn read_description(lines: &[&str], origin: &str, now: Timestamp) -> Vec<Item> {
    let Some(mut object) = object(lines) else { return Vec::new() };
    object["excerpt"] = json!(true);
    let reference = json!({
        "kind": object["kind"], "namespace": object["metadata"]["namespace"], "name": object["metadata"]["name"],
    });
    let described = Item { time: None, place: Place::Cluster, origin: origin.to_owned(), fact: Fact::Object(object) };
    let mut items = vec![described];
    items.extend(read_events(section(lines, EVENTS), &reference, origin, now));
    items
}

/// The heading of a table of events.
pub(crate) const EVENTS: &str = "Events:";

/// Events about an object, from the table below their heading.
pub(crate) fn read_events(lines: &[&str], about: &Value, origin: &str, now: Timestamp) -> Vec<Item> {
    let event = |(index, row): (usize, &BTreeMap<&str, String>)| {
        let get = |name: &str| row.get(name).map(String::as_str).unwrap_or_default();
        let time = age(get("Age")).and_then(|age| now.checked_sub(age).ok());
        let mut event = json!({
            "kind": "Event", "metadata": {"namespace": about["namespace"], "name": format!("pasted.{index}")},
            "type": get("Type"), "reason": get("Reason"), "message": get("Message"), "involvedObject": about,
            "source": {"component": get("From")},
        });
        if let Some(time) = time {
            event["lastTimestamp"] = json!(time.to_string());
        }
        Item { time, place: Place::Cluster, origin: origin.to_owned(), fact: Fact::Object(event) }
    };
    table(lines).iter().enumerate().map(event).collect()
}

fn object(lines: &[&str]) -> Option<Value> {
    let name = field(lines, "Name:")?;
    let has = |wanted: &str| lines.iter().any(|line| line.starts_with(wanted));
    let namespace = field(lines, "Namespace:").unwrap_or_default();
    let kind = match () {
        () if has("Roles:") && has("Taints:") => return Some(node(name, lines)),
        () if has("Containers:") && has("Node:") => return Some(pod(namespace, name, lines)),
        () if has("Access Modes:") && has("Used By:") => return Some(claim(namespace, name, lines)),
        () if has("StrategyType:") => "Deployment",
        () if has("Pods Status:") && has("Replicas:") => "ReplicaSet",
        () if has("Desired Number of Nodes Scheduled:") => "DaemonSet",
        () if has("IP Families:") => "Service",
        () if has("Completions:") => "Job",
        () => return None,
    };
    Some(json!({"kind": kind, "metadata": {"namespace": namespace, "name": name}}))
}

/// The value of a field in the first column.
fn field<'a>(lines: &[&'a str], name: &str) -> Option<&'a str> {
    let value = lines.iter().find_map(|line| line.strip_prefix(name))?.trim();
    (!value.is_empty() && value != "<none>" && value != "<unset>").then_some(value)
}

/// Names of fields are words that begin with a capital: `Node-Selectors`, `QoS Class`.
fn is_field_name(name: &str) -> bool {
    name.len() < 40 && name.split([' ', '-']).all(|word| word.starts_with(char::is_uppercase))
}

/// The lines below a heading.
fn section<'l, 'a>(lines: &'l [&'a str], heading: &str) -> &'l [&'a str] {
    let Some(start) = lines.iter().position(|line| line.trim_end() == heading) else { return &[] };
    let rest = &lines[start + 1..];
    // A message of several lines is not indented: only another heading ends the section.
    let is_heading = |line: &str| line.split_once(':').is_some_and(|(name, _)| is_field_name(name));
    &rest[..rest.iter().position(|line| is_heading(line)).unwrap_or(rest.len())]
}

/// Rows of a table whose columns are underlined, each as names with cells; the last column takes the rest of the line, and
/// the lines after it that are not indented as rows are.
fn table<'a>(lines: &[&'a str]) -> Vec<BTreeMap<&'a str, String>> {
    let Some(ruler) = lines.iter().position(|line| line.trim_start().starts_with("----")) else { return Vec::new() };
    let Some(header) = ruler.checked_sub(1).map(|above| lines[above]) else { return Vec::new() };
    let starts: Vec<usize> = column_starts(lines[ruler]);
    let range = |index: usize| (starts[index], starts.get(index + 1).copied().unwrap_or(usize::MAX));
    let cell = |line: &'a str, (from, to): (usize, usize)| line.get(from..to.min(line.len())).unwrap_or("").trim();
    let is_row = |line: &str| line.get(..starts[0]).is_some_and(|margin| margin.trim().is_empty());
    let mut rows: Vec<BTreeMap<&str, String>> = Vec::new();
    for line in lines[ruler + 1..].iter().filter(|line| !line.trim().is_empty()) {
        if is_row(line) {
            let cells =
                (0..starts.len()).map(|index| (cell(header, range(index)), cell(line, range(index)).to_owned()));
            rows.push(cells.collect());
        } else if let Some(last) = rows.last_mut().and_then(|row| row.get_mut(cell(header, range(starts.len() - 1)))) {
            last.push(' ');
            last.push_str(line.trim());
        }
    }
    rows
}

fn column_starts(ruler: &str) -> Vec<usize> {
    let is_start = |at: &usize| ruler.as_bytes()[*at] == b'-' && (*at == 0 || ruler.as_bytes()[at - 1] == b' ');
    (0..ruler.len()).filter(is_start).collect()
}

fn node(name: &str, lines: &[&str]) -> Value {
    let condition = |row: &BTreeMap<&str, String>| {
        let get = |name: &str| row.get(name).map(String::as_str).unwrap_or_default();
        json!({"type": get("Type"), "status": get("Status"), "reason": get("Reason"), "message": get("Message")})
    };
    let conditions: Vec<Value> = table(section(lines, "Conditions:")).iter().map(condition).collect();
    let first = lines.iter().position(|line| line.starts_with("Taints:"));
    let taints = first.into_iter().flat_map(|at| {
        let more = lines[at + 1..].iter().take_while(|line| line.starts_with(' '));
        std::iter::once(&lines[at]).chain(more).filter_map(|line| taint(line.trim_start_matches("Taints:").trim()))
    });
    json!({
        "kind": "Node", "metadata": {"name": name},
        "spec": {"taints": taints.collect::<Vec<_>>(), "unschedulable": field(lines, "Unschedulable:") == Some("true")},
        "status": {"conditions": conditions},
    })
}

fn taint(text: &str) -> Option<Value> {
    let (key, effect) = text.rsplit_once(':')?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    Some(json!({"key": key, "value": value, "effect": effect}))
}

fn pod(namespace: &str, name: &str, lines: &[&str]) -> Value {
    let node = field(lines, "Node:").map(|node| node.split('/').next().unwrap_or(node));
    let condition = |line: &&str| {
        let mut words = line.split_whitespace();
        let (kind, status) = (words.next()?, words.next()?);
        matches!(status, "True" | "False" | "Unknown").then(|| json!({"type": kind, "status": status}))
    };
    let conditions: Vec<Value> = section(lines, "Conditions:").iter().filter_map(condition).collect();
    json!({
        "kind": "Pod", "metadata": {"namespace": namespace, "name": name},
        "spec": node.map_or_else(|| json!({}), |node| json!({"nodeName": node})),
        "status": {
            "phase": field(lines, "Status:").unwrap_or("Unknown"), "conditions": conditions,
            "reason": field(lines, "Reason:").unwrap_or_default(), "message": field(lines, "Message:").unwrap_or_default(),
            "initContainerStatuses": statuses(section(lines, "Init Containers:")),
            "containerStatuses": statuses(section(lines, "Containers:")),
        },
    })
}

/// Statuses of containers: each begins with its name two spaces deep.
fn statuses(lines: &[&str]) -> Vec<Value> {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let starts: Vec<usize> =
        (0..lines.len()).filter(|&at| depth(lines[at]) == 2 && lines[at].trim_end().ends_with(':')).collect();
    let status = |(index, &start): (usize, &usize)| {
        let end = starts.get(index + 1).copied().unwrap_or(lines.len());
        let own = &lines[start + 1..end];
        let value = |name: &str| own.iter().find_map(|line| line.trim_start().strip_prefix(name)).map_or("", str::trim);
        json!({
            "name": lines[start].trim().trim_end_matches(':'),
            "ready": value("Ready:") == "True",
            "restartCount": value("Restart Count:").parse::<u64>().unwrap_or(0),
            "image": value("Image:"),
            "state": state(own, "State:"), "lastState": state(own, "Last State:"),
        })
    };
    starts.iter().enumerate().map(status).collect()
}

/// A state with the deeper lines below it.
fn state(lines: &[&str], name: &str) -> Value {
    let Some(at) = lines.iter().position(|line| line.trim_start().starts_with(name)) else { return json!({}) };
    let depth = |line: &str| line.len() - line.trim_start().len();
    let below: Vec<&str> = lines[at + 1..].iter().take_while(|line| depth(line) > depth(lines[at])).copied().collect();
    let value = |name: &str| below.iter().find_map(|line| line.trim_start().strip_prefix(name)).map_or("", str::trim);
    let detail = json!({"reason": value("Reason:"), "message": value("Message:")});
    match lines[at].trim_start().trim_start_matches(name).trim() {
        "Running" => json!({"running": {}}),
        "Waiting" => json!({"waiting": detail}),
        "Terminated" => {
            let code = value("Exit Code:").parse::<i64>().unwrap_or(0);
            json!({"terminated": {"reason": detail["reason"], "message": detail["message"], "exitCode": code}})
        }
        _ => json!({}),
    }
}

fn claim(namespace: &str, name: &str, lines: &[&str]) -> Value {
    let mut object = json!({
        "kind": "PersistentVolumeClaim", "metadata": {"namespace": namespace, "name": name},
        "spec": {}, "status": {"phase": field(lines, "Status:").unwrap_or("Pending")},
    });
    for (name, path) in [("StorageClass:", "storageClassName"), ("Volume:", "volumeName")] {
        if let Some(value) = field(lines, name) {
            object["spec"][path] = json!(value);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Value> {
        let lines: Vec<&str> = text.lines().collect();
        assert!(is_start(lines[0]));
        let now = "2026-07-22T12:00:00Z".parse().expect("a time");
        let object = |item: Item| match item.fact {
            Fact::Object(object) => object,
            other => panic!("{other}"),
        };
        read_description(&lines, "pasted", now).into_iter().map(object).collect()
    }

    #[test]
    fn a_pod_is_read_with_its_events() {
        let found = read(
            "Name:             web-1\nNamespace:        default\nNode:             one/10.0.0.1\nStatus:           Running\n\
             Containers:\n  app:\n    Image:          example/web\n    State:          Waiting\n      Reason:       CrashLoopBackOff\n\
             \u{20}   Last State:     Terminated\n      Reason:       StartError\n      Message:      exec: \"x\": executable file not found in $PATH\n\
             \u{20}     Exit Code:    128\n    Ready:          False\n    Restart Count:  5\n\
             Conditions:\n  Type              Status\n  Ready             False \n\
             Events:\n  Type     Reason     Age                  From     Message\n  ----     ------     ----                 ----     -------\n\
             \u{20} Warning  Unhealthy  16s (x466 over 68m)  kubelet  Readiness probe failed: no peering\ncalico/node is not ready: BIRD is not ready\n",
        );
        let status = &found[0]["status"]["containerStatuses"][0];
        assert_eq!(status["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!((&status["lastState"]["terminated"]["exitCode"], &status["restartCount"]), (&json!(128), &json!(5)));
        assert_eq!(found[0]["spec"]["nodeName"], "one");
        assert_eq!(found[0]["status"]["conditions"], json!([{"type": "Ready", "status": "False"}]));
        assert_eq!(
            (&found[1]["reason"], &found[1]["lastTimestamp"]),
            (&json!("Unhealthy"), &json!("2026-07-22T11:59:44Z"))
        );
        assert_eq!(
            found[1]["message"],
            "Readiness probe failed: no peering calico/node is not ready: BIRD is not ready"
        );
        assert_eq!(found[1]["involvedObject"], json!({"kind": "Pod", "namespace": "default", "name": "web-1"}));
    }

    #[test]
    fn a_node_is_read() {
        let found = read(
            "Name:               one\nRoles:              control-plane\n\
             Taints:             node-role.kubernetes.io/control-plane:NoSchedule\n                    a=b:NoExecute\nUnschedulable:      false\n\
             Conditions:\n  Type    Status  Reason           Message\n  ----    ------  ------           -------\n\
             \u{20} Ready   False   KubeletNotReady  container runtime network not ready: cni plugin not initialized\n\
             Events:              <none>\n",
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["spec"]["taints"][1], json!({"key": "a", "value": "b", "effect": "NoExecute"}));
        let ready = &found[0]["status"]["conditions"][0];
        assert_eq!((&ready["type"], &ready["reason"]), (&json!("Ready"), &json!("KubeletNotReady")));
    }

    #[test]
    fn what_has_no_known_form_gives_nothing() {
        assert_eq!(read("Name:  x\nColour:  blue\n"), Vec::<Value>::new());
    }
}
