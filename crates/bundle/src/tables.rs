//! Tables that `kubectl get` prints, as objects: only what the columns say.
//!
//! Pure. Columns stand where the header's words do; a cell may be empty.

use jiff::{SignedDuration, Timestamp};
use kedge_diagnosis::{Fact, Item, Place};
use serde_json::{Value, json};

/// A header with its rows.
pub(crate) struct Table<'a> {
    columns: Vec<(&'a str, usize)>,
    rows: Vec<&'a str>,
}

/// Whether a line is the header of a table that is known.
pub(crate) fn is_header(line: &str) -> bool {
    let columns = columns(line);
    let has = |name: &str| columns.iter().any(|(column, _)| *column == name);
    (has("NAME") && (has("STATUS") || has("READY") || has("AVAILABLE"))) || (has("REASON") && has("MESSAGE"))
}

/// Column names with the place of their first letter. Names of two words are one space apart, columns two or more.
fn columns(header: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    for part in header.split("  ") {
        let name = part.trim();
        if !name.is_empty() {
            found.push((name, at + part.len() - part.trim_start().len()));
        }
        at += part.len() + 2;
    }
    // A tab or a single space between short columns.
    if found.len() < 2 { Vec::new() } else { found }
}

impl<'a> Table<'a> {
    /// The table that begins with a header, and how many lines it has with it.
    pub(crate) fn read(lines: &[&'a str]) -> (Self, usize) {
        let rows: Vec<&str> = lines[1..].iter().take_while(|line| !line.trim().is_empty()).copied().collect();
        let rows: Vec<&str> = rows.into_iter().take_while(|line| !is_header(line)).collect();
        let count = rows.len() + 1;
        (Self { columns: columns(lines[0]), rows }, count)
    }

    fn cell(&self, row: &'a str, name: &str) -> Option<&'a str> {
        let index = self.columns.iter().position(|(column, _)| *column == name)?;
        let start = self.columns[index].1;
        let end = self.columns.get(index + 1).map_or(row.len(), |(_, at)| *at);
        Some(row.get(start..end.min(row.len()))?.trim())
    }

    /// The objects of its rows.
    pub(crate) fn objects(&self, origin: &str, now: Timestamp) -> Vec<Item> {
        let has = |name: &str| self.columns.iter().any(|(column, _)| *column == name);
        let make: fn(&Row<'_, '_>) -> Value = match () {
            () if has("REASON") && has("MESSAGE") => event,
            () if has("VOLUME") && has("STORAGECLASS") => claim,
            () if has("ROLES") => node,
            () if has("READY") && has("RESTARTS") => pod,
            () if has("UP-TO-DATE") => deployment,
            () => return Vec::new(),
        };
        let item = |row: &&'a str| {
            let mut object = make(&Row { table: self, row });
            object["excerpt"] = json!(true);
            let age = self.cell(row, "LAST SEEN").or_else(|| self.cell(row, "AGE")).and_then(age);
            let time = age.and_then(|age| now.checked_sub(age).ok());
            Item { time, place: Place::Cluster, origin: origin.to_owned(), fact: Fact::Object(with_time(object, time)) }
        };
        self.rows.iter().map(item).collect()
    }
}

struct Row<'t, 'a> {
    table: &'t Table<'a>,
    row: &'a str,
}

impl<'a> Row<'_, 'a> {
    fn get(&self, name: &str) -> &'a str {
        self.table.cell(self.row, name).unwrap_or_default()
    }

    fn metadata(&self) -> Value {
        let namespace = Some(self.get("NAMESPACE")).filter(|namespace| !namespace.is_empty()).unwrap_or("default");
        json!({"namespace": namespace, "name": self.get("NAME")})
    }
}

fn with_time(mut object: Value, time: Option<Timestamp>) -> Value {
    let Some(time) = time.map(|time| json!(time.to_string())) else { return object };
    if object["kind"] == "Event" {
        object["lastTimestamp"] = time;
    } else {
        object["metadata"]["creationTimestamp"] = time;
    }
    object
}

/// An age as kubectl writes it: `5d`, `3h20m`, `(x5 over 10m)` after it is left out.
pub(crate) fn age(text: &str) -> Option<SignedDuration> {
    let (mut seconds, mut number) = (0_i64, String::new());
    for letter in text.split_whitespace().next()?.chars() {
        if letter.is_ascii_digit() {
            number.push(letter);
            continue;
        }
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'y' => 31_536_000,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<i64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    number.is_empty().then(|| SignedDuration::from_secs(seconds))
}

fn node(row: &Row<'_, '_>) -> Value {
    let status = row.get("STATUS");
    let ready = match status.split(',').next() {
        Some("Ready") => "True",
        Some("NotReady") => "False",
        _ => "Unknown",
    };
    json!({
        "kind": "Node", "metadata": {"name": row.get("NAME")},
        "spec": {"unschedulable": status.contains("SchedulingDisabled")},
        "status": {
            "conditions": [{"type": "Ready", "status": ready, "message": ""}],
            "nodeInfo": {"kubeletVersion": row.get("VERSION")},
        },
    })
}

fn pod(row: &Row<'_, '_>) -> Value {
    let status = row.get("STATUS");
    let (ready, wanted) = row.get("READY").split_once('/').unwrap_or(("0", "0"));
    let (ready, wanted) = (ready.parse().unwrap_or(0), wanted.parse().unwrap_or(0_u32).min(64));
    let restarts: u64 = row.get("RESTARTS").split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let (is_init, reason) = status.strip_prefix("Init:").map_or((false, status), |reason| (true, reason));
    let phase = match reason {
        "Running" | "CrashLoopBackOff" | "Error" | "OOMKilled" | "RunContainerError" | "StartError" => "Running",
        "Completed" | "Succeeded" => "Succeeded",
        "Failed" | "Evicted" | "NodeLost" | "OutOfcpu" | "OutOfmemory" | "OutOfpods" | "UnexpectedAdmissionError" => {
            "Failed"
        }
        _ => "Pending",
    };
    let statuses = |is_wrong: bool| -> Vec<Value> {
        let one = |index: u32| {
            let is_ready = index < ready;
            let state = if is_ready || !is_wrong { json!({"running": {}}) } else { state(reason) };
            let mut status =
                json!({"name": format!("#{}", index + 1), "ready": is_ready, "restartCount": restarts, "state": state});
            if reason == "OOMKilled" {
                status["lastState"] = status["state"].clone();
            }
            status
        };
        (0..wanted).map(one).collect()
    };
    let is_plain = matches!(reason, "Running" | "Pending" | "Completed" | "Succeeded" | "Terminating" | "Unknown");
    let field = if is_init { "initContainerStatuses" } else { "containerStatuses" };
    let mut object = json!({
        "kind": "Pod", "metadata": row.metadata(),
        "spec": {},
        "status": {"phase": phase, field: if phase == "Pending" && is_plain { Vec::new() } else { statuses(!is_plain) }},
    });
    if phase == "Failed" {
        object["status"]["reason"] = json!(reason);
    }
    if !matches!(row.get("NODE"), "" | "<none>") {
        object["spec"]["nodeName"] = json!(row.get("NODE"));
    }
    if phase == "Running" && wanted > 0 {
        let is_ready = if ready >= wanted { "True" } else { "False" };
        object["status"]["conditions"] = json!([{"type": "Ready", "status": is_ready}]);
    }
    object
}

fn state(reason: &str) -> Value {
    match reason {
        "Error" | "OOMKilled" | "StartError" => {
            let code = match reason {
                "OOMKilled" => 137,
                "StartError" => 128,
                _ => 1,
            };
            json!({"terminated": {"reason": reason, "exitCode": code}})
        }
        reason => json!({"waiting": {"reason": reason}}),
    }
}

fn event(row: &Row<'_, '_>) -> Value {
    let (kind, name) = row.get("OBJECT").split_once('/').unwrap_or_default();
    let namespace = match (row.get("NAMESPACE"), kind) {
        (_, "node" | "Node") => "",
        ("", _) => "default",
        (namespace, _) => namespace,
    };
    json!({
        "kind": "Event", "metadata": {"namespace": namespace, "name": format!("{name}.pasted")},
        "type": row.get("TYPE"), "reason": row.get("REASON"), "message": row.get("MESSAGE"),
        "involvedObject": {"kind": kind_of(kind), "namespace": namespace, "name": name},
    })
}

/// The kind of a resource as a table names it: `pod`, `node`, `persistentvolumeclaim`.
pub(crate) fn kind_of(resource: &str) -> String {
    const KINDS: [(&str, &str); 12] = [
        ("cronjob", "CronJob"),
        ("daemonset", "DaemonSet"),
        ("deployment", "Deployment"),
        ("horizontalpodautoscaler", "HorizontalPodAutoscaler"),
        ("job", "Job"),
        ("node", "Node"),
        ("persistentvolumeclaim", "PersistentVolumeClaim"),
        ("pod", "Pod"),
        ("replicaset", "ReplicaSet"),
        ("service", "Service"),
        ("statefulset", "StatefulSet"),
        ("namespace", "Namespace"),
    ];
    const SHORT: [(&str, &str); 8] = [
        ("deploy", "deployment"),
        ("ds", "daemonset"),
        ("no", "node"),
        ("ns", "namespace"),
        ("po", "pod"),
        ("pvc", "persistentvolumeclaim"),
        ("sts", "statefulset"),
        ("svc", "service"),
    ];
    let name = resource.split('.').next().unwrap_or_default().to_lowercase();
    let name = SHORT.iter().find(|(short, _)| *short == name).map_or(name.trim_end_matches('s'), |(_, long)| *long);
    KINDS.iter().find(|(known, _)| *known == name).map_or_else(|| resource.to_owned(), |(_, kind)| (*kind).to_owned())
}

fn claim(row: &Row<'_, '_>) -> Value {
    let mut object = json!({
        "kind": "PersistentVolumeClaim", "metadata": row.metadata(),
        "spec": {"volumeName": row.get("VOLUME")}, "status": {"phase": row.get("STATUS")},
    });
    if !matches!(row.get("STORAGECLASS"), "" | "<unset>") {
        object["spec"]["storageClassName"] = json!(row.get("STORAGECLASS"));
    }
    object
}

fn deployment(row: &Row<'_, '_>) -> Value {
    let (ready, wanted) = row.get("READY").split_once('/').unwrap_or(("0", "0"));
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    json!({
        "kind": "Deployment", "metadata": row.metadata(), "spec": {"replicas": number(wanted)},
        "status": {
            "readyReplicas": number(ready), "updatedReplicas": number(row.get("UP-TO-DATE")),
            "availableReplicas": number(row.get("AVAILABLE")),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(text: &str) -> Vec<Value> {
        let lines: Vec<&str> = text.lines().collect();
        assert!(is_header(lines[0]), "{}", lines[0]);
        let now = "2026-07-22T12:00:00Z".parse().expect("a time");
        let (table, count) = Table::read(&lines);
        assert_eq!(count, lines.len());
        let object = |item: Item| match item.fact {
            Fact::Object(object) => object,
            other => panic!("{other}"),
        };
        table.objects("pasted", now).into_iter().map(object).collect()
    }

    #[test]
    fn pods_are_read() {
        let found = objects(
            "NAMESPACE     NAME      READY   STATUS             RESTARTS        AGE\n\
             kube-system   calico    0/1     Running            0               18h\n\
             default       web-1     1/2     CrashLoopBackOff   3 (7m35s ago)   2d\n\
             default       waits     0/1     Pending            0               5m\n",
        );
        assert_eq!(found[0]["status"]["conditions"][0]["status"], "False");
        assert_eq!(found[1]["status"]["containerStatuses"][1]["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(found[1]["status"]["containerStatuses"][0]["state"], json!({"running": {}}));
        assert_eq!(found[1]["metadata"]["creationTimestamp"], "2026-07-20T12:00:00Z");
        assert_eq!(
            (&found[2]["status"]["phase"], &found[2]["metadata"]["namespace"]),
            (&json!("Pending"), &json!("default"))
        );
    }

    #[test]
    fn nodes_events_and_claims_are_read() {
        let nodes = objects(
            "NAME    STATUS                     ROLES           AGE   VERSION\n\
             one     Ready                      control-plane   67m   v1.36.0\n\
             two     NotReady                   <none>          53s   v1.36.0\n\
             three   Ready,SchedulingDisabled   worker          1y2d  v1.36.0\n",
        );
        let ready = |node: &Value| node["status"]["conditions"][0]["status"].clone();
        assert_eq!([ready(&nodes[0]), ready(&nodes[1]), ready(&nodes[2])], ["True", "False", "True"]);
        assert_eq!(nodes[2]["spec"]["unschedulable"], true);
        let events = objects(
            "LAST SEEN   TYPE      REASON             OBJECT      MESSAGE\n\
             2m          Warning   FailedScheduling   pod/web-1   0/1 nodes are available:  1 Insufficient cpu.\n",
        );
        assert_eq!(events[0]["involvedObject"]["kind"], "Pod");
        assert_eq!(events[0]["message"], "0/1 nodes are available:  1 Insufficient cpu.");
        assert_eq!(events[0]["lastTimestamp"], "2026-07-22T11:58:00Z");
        let claims = objects(
            "NAME   STATUS    VOLUME   CAPACITY   ACCESS MODES   STORAGECLASS   VOLUMEATTRIBUTESCLASS   AGE\n\
             data   Pending                                                      <unset>                 5m\n",
        );
        assert_eq!(
            (&claims[0]["status"]["phase"], &claims[0]["spec"]["storageClassName"]),
            (&json!("Pending"), &Value::Null)
        );
    }

    #[test]
    fn other_lines_are_no_headers() {
        for line in ["", "Name:   web", "E0722 10:00:00 failed", "NAME", "the NAME of the STATUS"] {
            assert!(!is_header(line), "{line}");
        }
    }
}
