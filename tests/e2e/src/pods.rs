//! A node with an image to run, and the questions that tests ask about pods.
//!
//! Invariant: every wait is for a condition, with a deadline, and names what was seen last.

use std::time::Duration;

use serde_json::Value;

use crate::binary::busybox_image;
use crate::host::{Host, HostOptions};
use crate::kubectl::Kubectl;
use crate::wait::eventually;

/// The image that [`Node`] has loaded: busybox, curl and perl.
pub const BUSYBOX: &str = "localhost/busybox:test";

const PATIENCE: Duration = Duration::from_secs(90);

/// A host with a running cluster of one node, and kubectl for it.
pub struct Node {
    /// The host.
    pub host: Host,
    /// kubectl for its cluster.
    pub kubectl: Kubectl,
}

impl Node {
    /// A node with busybox loaded; `None` (with the reason said) where that can't be here.
    pub fn up(options: HostOptions) -> Option<Self> {
        let host = Host::up(options)?;
        let archive = host.file("busybox.tar");
        busybox_image(BUSYBOX, &archive);
        let loaded = host.kedge("image", &["load", archive.to_str().expect("paths of tests are text")]);
        assert!(loaded.ok, "{}", loaded.all());
        let kubectl = host.kubectl();
        Some(Self { host, kubectl })
    }

    /// Makes a pod; `spec` is YAML, indented by two spaces.
    pub fn pod(&self, name: &str, spec: &str) {
        self.kubectl.apply(&manifest(name, spec));
    }

    /// Makes a pod of one container `c` that runs a shell script once.
    pub fn script(&self, name: &str, script: &str, container: &str, pod: &str) {
        self.pod(name, &script_spec(script, container, pod));
    }

    /// An object as JSON.
    pub fn get(&self, kind: &str, name: &str) -> Value {
        let output = self.kubectl.try_run(&["get", kind, name, "-o", "json"]);
        serde_json::from_str(&output.stdout).unwrap_or(Value::Null)
    }

    /// Waits until `check` accepts a pod, and returns it as it then was.
    pub fn until(&self, pod: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{pod}: {what}"), PATIENCE, || {
            let seen = self.get("pod", pod);
            if check(&seen) { Ok(seen) } else { Err(format!("{}\n{}", seen["status"], self.events(pod))) }
        })
    }

    /// Waits until a pod is `Succeeded` or `Failed`, and returns it.
    pub fn ended(&self, pod: &str, phase: &str) -> Value {
        let over = |seen: &Value| matches!(seen["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let seen = self.until(pod, "being over", over);
        let logs = || self.kubectl.try_run(&["logs", pod, "--all-containers", "--tail=50"]).all();
        assert_eq!(seen["status"]["phase"], phase, "{pod}: {}\n{}", seen["status"], logs());
        seen
    }

    /// Waits until a pod is ready, and returns it.
    pub fn ready(&self, pod: &str) -> Value {
        self.until(pod, "being ready", |seen| condition(seen, "Ready")["status"] == "True")
    }

    /// Waits until nothing of a pod is left in the API.
    pub fn gone(&self, pod: &str) {
        eventually(&format!("the end of {pod}"), PATIENCE, || match self.get("pod", pod) {
            Value::Null => Ok(()),
            seen => Err(seen["status"].to_string()),
        });
    }

    /// What a pod's container (the only one, or the named one) has printed.
    pub fn logs(&self, pod: &str, container: Option<&str>) -> String {
        let mut arguments = vec!["logs", pod];
        arguments.extend(container.into_iter().flat_map(|name| ["-c", name]));
        self.kubectl.run(&arguments)
    }

    /// The output of a pod's script, once it has succeeded.
    pub fn output(&self, pod: &str) -> String {
        self.ended(pod, "Succeeded");
        self.logs(pod, None)
    }

    /// Runs a shell script in a pod.
    pub fn exec(&self, pod: &str, script: &str) -> String {
        self.kubectl.run(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Reason and message of each event about a pod, one on each line.
    pub fn events(&self, pod: &str) -> String {
        let path = "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}";
        let selector = format!("involvedObject.name={pod}");
        self.kubectl.try_run(&["get", "events", "--field-selector", &selector, "-o", path]).stdout
    }

    /// Waits for an event whose `reason message` contains the text.
    pub fn event(&self, pod: &str, text: &str) {
        eventually(&format!("an event of {pod} with {text:?}"), PATIENCE, || {
            let events = self.events(pod);
            if events.contains(text) { Ok(()) } else { Err(format!("{events}{}", self.get("pod", pod)["status"])) }
        });
    }

    /// Waits until a pod runs, and returns its address.
    pub fn address(&self, pod: &str) -> String {
        let seen = self.ready(pod);
        seen["status"]["podIP"].as_str().unwrap_or_default().to_owned()
    }
}

/// The YAML of a pod; `spec` is indented by two spaces.
pub fn manifest(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n{spec}")
}

/// The spec of a pod of one container that runs a shell script once. `container` and `pod` are further lines of YAML,
/// indented by four and two spaces.
pub fn script_spec(script: &str, container: &str, pod: &str) -> String {
    let script = serde_json::to_string(script).unwrap_or_default();
    format!(
        "  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n{pod}  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    command: [sh, -c, {script}]\n{container}"
    )
}

/// A condition of an object; null where it has none of that type.
pub fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|condition| condition["type"] == type_).unwrap_or(&Value::Null)
}

/// The status of a container of a pod, of whatever kind; null where it has none.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut all = lists.iter().flat_map(|list| pod["status"][list].as_array().into_iter().flatten());
    all.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}
