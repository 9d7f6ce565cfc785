//! What a request asks for.
//!
//! Pure. Invariant: selectors are understood as everywhere in the API, and refused with the same texts.

use http::{HeaderMap, Request};
use kedge_meta::{ApiStatus, FieldSelector, LabelSelector};

use crate::answer::{GROUP, VERSION};

/// Which resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Nodes,
    Pods,
}

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Metadata,
    /// `meta.k8s.io` of this version.
    Table(&'static str, Include),
}

/// What rows of tables carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// A request.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) what: What,
    /// Empty for all.
    pub(crate) namespace: String,
    /// Empty for a list.
    pub(crate) name: String,
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    pub(crate) form: Form,
}

impl Query {
    /// Reads a request.
    pub(crate) fn of<B>(request: &Request<B>) -> Result<Self, ApiStatus> {
        let (what, namespace, name) = path(request.uri().path()).ok_or_else(ApiStatus::no_such_path)?;
        let query = request.uri().query().unwrap_or_default();
        let value = |key: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(name, _)| name == key).map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        let labels = LabelSelector::parse(&value("labelSelector"))
            .map_err(|error| ApiStatus::bad_request(format!("unable to parse requirement: {error}")))?;
        let fields =
            FieldSelector::parse(&value("fieldSelector")).map_err(|error| ApiStatus::bad_request(error.to_string()))?;
        for (field, _, _) in fields.terms() {
            if !matches!(field.as_str(), "metadata.name" | "metadata.namespace") {
                return Err(ApiStatus::bad_request(format!("field label not supported: {field}")));
            }
        }
        let form = form(request.headers(), &value("includeObject"))?;
        Ok(Self { what, namespace, name, labels, fields, form })
    }

    /// Whether an object is among those that are asked for.
    pub(crate) fn wants(
        &self,
        namespace: &str,
        name: &str,
        labels: &std::collections::BTreeMap<String, String>,
    ) -> bool {
        let field = |path: &str| if path == "metadata.namespace" { namespace } else { name }.to_owned();
        (self.namespace.is_empty() || self.namespace == namespace)
            && (self.name.is_empty() || self.name == name)
            && self.labels.matches(labels)
            && self.fields.matches_with(field)
    }
}

/// Resource, namespace and name of a path.
fn path(path: &str) -> Option<(What, String, String)> {
    let rest = path.strip_prefix("/apis/")?.strip_prefix(GROUP)?.strip_prefix('/')?.strip_prefix(VERSION)?;
    let parts: Vec<&str> = rest.trim_matches('/').split('/').collect();
    let (what, namespace, name) = match parts[..] {
        ["nodes"] => (What::Nodes, "", ""),
        ["nodes", name] => (What::Nodes, "", name),
        ["pods"] => (What::Pods, "", ""),
        ["namespaces", namespace, "pods"] => (What::Pods, namespace, ""),
        ["namespaces", namespace, "pods", name] => (What::Pods, namespace, name),
        _ => return None,
    };
    Some((what, namespace.to_owned(), name.to_owned()))
}

fn form(headers: &HeaderMap, include: &str) -> Result<Form, ApiStatus> {
    let include = match include {
        "" | "Metadata" => Include::Metadata,
        "None" => Include::Nothing,
        "Object" => Include::Object,
        other => return Err(ApiStatus::bad_request(format!("unrecognized includeObject value: \"{other}\""))),
    };
    let accept = headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in accept.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        if !matches!(media_type, "application/json" | "application/yaml" | "application/*" | "*/*") {
            continue;
        }
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let get = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        match (get("as"), get("g"), get("v")) {
            (None, _, _) => return Ok(Form::Object),
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => return Ok(Form::Table("v1", include)),
            (Some("Table"), Some("meta.k8s.io"), Some("v1beta1")) => return Ok(Form::Table("v1beta1", include)),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
                return Ok(Form::Metadata);
            }
            _ => {}
        }
    }
    Ok(Form::Object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(uri: &str, accept: &str) -> Result<Query, ApiStatus> {
        Query::of(&Request::builder().uri(uri).header("accept", accept).body(()).unwrap())
    }

    #[test]
    fn paths_and_selectors() {
        let base = "/apis/metrics.k8s.io/v1beta1";
        let one = query(&format!("{base}/namespaces/n/pods/p"), "*/*").unwrap();
        assert_eq!((one.what, one.namespace.as_str(), one.name.as_str()), (What::Pods, "n", "p"));
        let web = [("app".to_owned(), "web".to_owned())].into();
        let some = query(&format!("{base}/pods?labelSelector=app%3Dweb&fieldSelector=metadata.name%3Dp"), "").unwrap();
        assert!(some.wants("n", "p", &web) && !some.wants("n", "q", &web) && !some.wants("n", "p", &[].into()));
        assert_eq!(query(&format!("{base}/pods?fieldSelector=spec.nodeName%3Dx"), "").unwrap_err().code, 400);
        assert_eq!(query(&format!("{base}/services"), "").unwrap_err().code, 404);
    }

    #[test]
    fn the_first_form_that_is_known() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        for (accept, include, expected) in [
            ("", "", Form::Object),
            (table, "", Form::Table("v1", Include::Metadata)),
            (table, "?includeObject=None", Form::Table("v1", Include::Nothing)),
            ("application/vnd.kubernetes.protobuf,application/json", "", Form::Object),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "", Form::Metadata),
            ("application/json;as=Table;v=v7;g=meta.k8s.io,application/json", "", Form::Object),
        ] {
            let found = query(&format!("/apis/metrics.k8s.io/v1beta1/nodes{include}"), accept).unwrap();
            assert_eq!(found.form, expected, "{accept}");
        }
    }
}
