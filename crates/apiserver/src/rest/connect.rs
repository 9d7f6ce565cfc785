//! What webhooks are asked about a connection to a pod, service or node: the options that it is made with. What they change
//! of these is what the connection is made with.

use kedge_meta::{ApiStatus, GroupVersionKind};
use kedge_streaming::StreamOptions;
use serde_json::{Map, Value, json};

use super::logs::encode;
use crate::admission::{Attributes, Operation, Seen, Told};
use crate::call::Call;
use crate::core::Core;
use crate::object;
use crate::query::Query;
use crate::registry::Resource;
use crate::target::Target;

/// Asks about the connection that a request wants; afterwards it wants what is allowed.
pub(super) async fn ask(core: &Core, call: &mut Call, resource: &Resource) -> Result<(), ApiStatus> {
    let Some((kind, options)) = options(call, &resource.kind.resource) else { return Ok(()) };
    let kind = GroupVersionKind::new("", "v1", kind);
    let mut allowed = options.clone();
    let told = Told { options: &Value::Null, dry_run: false, notes: &call.notes, seen: Seen::As(&kind) };
    let attributes = Attributes::of(core, call, resource, Operation::Connect, told);
    core.admission.ask(&attributes, &mut allowed).await?;
    if allowed != options {
        take_over(call, &allowed);
    }
    Ok(())
}

/// Makes a request what it would be if it had been sent with these options.
fn take_over(call: &mut Call, options: &Value) {
    if let Target::Resource(target) = &mut call.target
        && target.subresource == "proxy"
    {
        target.rest = object::text(options, &["path"]).to_owned();
        return;
    }
    let mut pairs = Vec::new();
    for name in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|name| options[*name] == true) {
        pairs.push(format!("{name}=true"));
    }
    if let Some(container) = options["container"].as_str().filter(|name| !name.is_empty()) {
        pairs.push(format!("container={}", encode(container)));
    }
    let words = object::list(options, &["command"]).iter().filter_map(Value::as_str);
    pairs.extend(words.map(|word| format!("command={}", encode(word))));
    pairs.extend(object::list(options, &["ports"]).iter().map(|port| format!("ports={port}")));
    call.raw_query = pairs.join("&");
    call.query = Query::parse(&call.raw_query);
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
