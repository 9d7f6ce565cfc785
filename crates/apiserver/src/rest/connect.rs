//! What webhooks are asked about a connection to a pod, service or node: the options that it is made with.
// DIVERGES: a webhook may refuse a connection; what it changes of its options has no effect.

use kedge_meta::{ApiStatus, GroupVersionKind};
use kedge_streaming::StreamOptions;
use serde_json::{Map, Value, json};

use crate::admission::{Attributes, Operation, Seen, Told};
use crate::call::Call;
use crate::core::Core;
use crate::registry::Resource;

/// Asks about the connection that a request wants.
pub(super) async fn ask(core: &Core, call: &Call, resource: &Resource) -> Result<(), ApiStatus> {
    let Some((kind, mut options)) = options(call, &resource.kind.resource) else { return Ok(()) };
    let kind = GroupVersionKind::new("", "v1", kind);
    let told = Told { options: &Value::Null, dry_run: false, notes: &call.notes, seen: Seen::As(&kind) };
    let attributes = Attributes::of(core, call, resource, Operation::Connect, told);
    core.admission.ask(&attributes, &mut options).await
}

/// The kind of a connection's options, and the options.
fn options(call: &Call, resource: &str) -> Option<(&'static str, Value)> {
    let target = call.resource();
    let kind = match (resource, target.subresource.as_str()) {
        ("pods", "exec") => "PodExecOptions",
        ("pods", "attach") => "PodAttachOptions",
        ("pods", "portforward") => "PodPortForwardOptions",
        ("pods", "proxy") => "PodProxyOptions",
        ("services", "proxy") => "ServiceProxyOptions",
        ("nodes", "proxy") => "NodeProxyOptions",
        _ => return None,
    };
    let mut options = Map::new();
    options.insert("kind".to_owned(), kind.into());
    options.insert("apiVersion".to_owned(), "v1".into());
    match target.subresource.as_str() {
        "portforward" => {
            let ports: Vec<i64> = call.query.all("ports").filter_map(|port| port.parse().ok()).collect();
            if !ports.is_empty() {
                options.insert("ports".to_owned(), json!(ports));
            }
        }
        "proxy" if !target.rest.is_empty() => drop(options.insert("path".to_owned(), target.rest.as_str().into())),
        "proxy" => {}
        _ => stream_options(call, &mut options),
    }
    Some((kind, Value::Object(options)))
}

fn stream_options(call: &Call, options: &mut Map<String, Value>) {
    let asked = StreamOptions::from_query(&call.raw_query);
    for (name, on) in [("stdin", asked.stdin), ("stdout", asked.stdout), ("stderr", asked.stderr), ("tty", asked.tty)] {
        if on {
            options.insert(name.to_owned(), true.into());
        }
    }
    if let Some(container) = call.query.non_empty("container") {
        options.insert("container".to_owned(), container.into());
    }
    if call.resource().subresource == "exec" {
        options.insert("command".to_owned(), json!(call.query.all("command").collect::<Vec<_>>()));
    }
}
