//! What a request counts as, in upstream's words: the verb is that of HTTP, made clearer where one stands for several things.

use http::Method;
use http::header::CONTENT_TYPE;

use crate::call::Call;
use crate::core::Core;
use crate::target::Target;

/// Subresources that lead somewhere else.
const CONNECTING: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// Paths that are counted by themselves.
const PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// What a request counts as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Labels {
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    /// Or the path, of some that are no resources.
    pub(crate) subresource: String,
    pub(crate) scope: &'static str,
    /// `All` where nothing is kept.
    pub(crate) dry_run: &'static str,
}

impl Labels {
    pub(crate) fn of(core: &Core, call: &Call) -> Self {
        let mut labels = Self {
            verb: verb(call),
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: String::new(),
            scope: "",
            dry_run: if call.query.get("dryRun") == Some("All") { "All" } else { "" },
        };
        let Target::Resource(target) = &call.target else {
            labels.subresource = PATHS.into_iter().find(|path| *path == call.path).unwrap_or_default().to_owned();
            return labels;
        };
        let registry = core.registry.load();
        // Only what is served is named, so that clients can't make up series.
        let Some(resource) = registry.find(&target.group, &target.version, &target.resource) else { return labels };
        labels.group = target.group.clone();
        labels.version = target.version.clone();
        labels.resource = target.resource.clone();
        if resource.kind.subresource(&target.subresource).is_some() {
            labels.subresource = target.subresource.clone();
        }
        labels.scope = match (target.name.is_empty(), target.namespace.is_empty()) {
            _ if call.method == Method::POST => "resource",
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        labels
    }

    pub(super) fn text(&self, with_dry_run: bool) -> String {
        let Self { verb, group, version, resource, subresource, scope, dry_run } = self;
        let dry_run = if with_dry_run { format!("dry_run=\"{dry_run}\",") } else { String::new() };
        format!(
            "component=\"apiserver\",{dry_run}group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",\
             subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

fn verb(call: &Call) -> &'static str {
    let subresource = match &call.target {
        Target::Resource(target) => target.subresource.as_str(),
        Target::Other => "",
    };
    if CONNECTING.contains(&subresource) {
        return "CONNECT";
    }
    match (&call.method, call.verb) {
        (_, "watch") => "WATCH",
        (_, "list") => "LIST",
        (&Method::GET | &Method::HEAD, _) => "GET",
        (&Method::POST, _) => "POST",
        (&Method::PUT, _) => "PUT",
        (&Method::DELETE, _) => "DELETE",
        (&Method::PATCH, _) if call.header(CONTENT_TYPE.as_str()) == "application/apply-patch+yaml" => "APPLY",
        (&Method::PATCH, _) => "PATCH",
        _ => "other",
    }
}
