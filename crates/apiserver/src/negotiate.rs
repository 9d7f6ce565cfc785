//! Content negotiation: what the client sends, what it wants back, and in which form.
//!
//! JSON, YAML and protobuf, both ways: the first that the client names and the kind has. Invariant: what is not acceptable
//! is refused before anything is done.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use kedge_meta::{ApiStatus, MediaRange, StatusReason};
use kedge_schema::{BodyFormat, PROTOBUF};

use crate::query::Query;

/// What an answer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json { pretty: bool },
    Yaml,
    Protobuf,
}

/// In which form an object or list is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object itself.
    Object,
    /// `meta.k8s.io` `Table` of this version.
    Table(&'static str),
    /// `PartialObjectMetadata`, or its list where a list was asked for.
    Metadata,
}

/// What the client accepts best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
}

impl Accepted {
    /// Whether stored bytes can go out as they are.
    pub(crate) fn is_plain(&self) -> bool {
        self.encoding == Encoding::Json { pretty: false } && self.form == Form::Object
    }
}

const SUPPORTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The entries of the `Accept` headers, best first.
pub(crate) fn accept_ranges(headers: &HeaderMap) -> Vec<MediaRange<'_>> {
    kedge_meta::accept_ranges(headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()))
}

/// What an answer may look like. Only resources know other forms than the object.
pub(crate) fn accepted(headers: &HeaderMap, query: &Query) -> Result<Accepted, ApiStatus> {
    accepted_by(headers, query, |_| true)
}

/// The same for a kind that has only some forms in protobuf.
pub(crate) fn accepted_by(
    headers: &HeaderMap,
    query: &Query,
    in_protobuf: impl Fn(&Form) -> bool,
) -> Result<Accepted, ApiStatus> {
    best(&accept_ranges(headers), wants_pretty(headers, query), in_protobuf)
}

/// The encoding of an answer that has no other form than the object, as of a review, a binding or a token: what asks for a
/// table is passed over.
pub(crate) fn accepted_object(headers: &HeaderMap, query: &Query) -> Result<Encoding, ApiStatus> {
    let mut ranges = accept_ranges(headers);
    let asked = ranges.len();
    ranges.retain(|range| range.get("as").is_none());
    if ranges.len() < asked && ranges.is_empty() {
        return Err(not_acceptable());
    }
    best(&ranges, wants_pretty(headers, query), |_| true).map(|accepted| accepted.encoding)
}

fn best(ranges: &[MediaRange<'_>], pretty: bool, in_protobuf: impl Fn(&Form) -> bool) -> Result<Accepted, ApiStatus> {
    if ranges.is_empty() {
        return Ok(Accepted { encoding: Encoding::Json { pretty }, form: Form::Object });
    }
    for range in ranges {
        let encoding = match range.name.as_str() {
            "application/json" | "*/*" | "application/*" => Encoding::Json { pretty },
            "application/yaml" => Encoding::Yaml,
            PROTOBUF => Encoding::Protobuf,
            _ => continue,
        };
        let Some(form) = form(range) else { continue };
        // Tables have no protobuf form.
        let possible = encoding != Encoding::Protobuf || (!matches!(form, Form::Table(_)) && in_protobuf(&form));
        if possible {
            return Ok(Accepted { encoding, form });
        }
    }
    Err(not_acceptable())
}

/// 406 with what would do.
pub(crate) fn not_acceptable() -> ApiStatus {
    let text = format!("only the following media types are accepted: {SUPPORTED}");
    ApiStatus::new(406, StatusReason::NotAcceptable, text)
}

fn form(range: &MediaRange<'_>) -> Option<Form> {
    let Some(kind) = range.get("as") else { return Some(Form::Object) };
    let version = match (range.get("g"), range.get("v")) {
        (Some("meta.k8s.io"), Some("v1")) => "v1",
        (Some("meta.k8s.io"), Some("v1beta1")) => "v1beta1",
        _ => return None,
    };
    match (kind, version) {
        ("Table", version) => Some(Form::Table(version)),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1") => Some(Form::Metadata),
        _ => None,
    }
}

fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(pretty) = query.get("pretty") {
        return matches!(pretty, "true" | "1" | "");
    }
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|browser| agent.starts_with(browser))
}

/// The encoding of a request's object.
pub(crate) fn body_format(headers: &HeaderMap) -> Result<BodyFormat, ApiStatus> {
    match content_type(headers).as_str() {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        PROTOBUF => Ok(BodyFormat::Protobuf),
        _ => Err(unsupported_media_type(SUPPORTED)),
    }
}

/// The media type of a request's body, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    MediaRange::parse(value).name
}

/// 415 with what would do.
pub(crate) fn unsupported_media_type(supported: &str) -> ApiStatus {
    let text = format!("the body of the request was in an unknown format - accepted media types include: {supported}");
    ApiStatus::new(415, StatusReason::UnsupportedMediaType, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<(Encoding, Form)>) {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, accept.parse().unwrap());
        }
        let actual = accepted(&headers, &Query::default()).ok().map(|accepted| (accepted.encoding, accepted.form));
        assert_eq!(actual, expected, "{accept}");
    }

    #[test]
    fn the_best_acceptable_form_is_chosen() {
        let json = Encoding::Json { pretty: false };
        check("", Some((json, Form::Object)));
        check("*/*", Some((json, Form::Object)));
        check("application/yaml", Some((Encoding::Yaml, Form::Object)));
        let protobuf = Some((Encoding::Protobuf, Form::Object));
        check("application/vnd.kubernetes.protobuf,application/json", protobuf.clone());
        check("application/vnd.kubernetes.protobuf, application/json", protobuf.clone());
        check("application/json,application/vnd.kubernetes.protobuf", Some((json, Form::Object)));
        check("application/vnd.kubernetes.protobuf;q=0.5,application/json", Some((json, Form::Object)));
        check("application/vnd.kubernetes.protobuf", protobuf);
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
        check(table, None);
        check(&format!("{table},application/json"), Some((json, Form::Object)));
        let metadata = "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let both = format!("application/vnd.kubernetes.protobuf;{metadata},application/json;{metadata}");
        check(&both, Some((Encoding::Protobuf, Form::Metadata)));
        check("text/html", None);
        check("application/yaml;q=0.5,application/json;q=0.9", Some((json, Form::Object)));
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        check(table, Some((json, Form::Table("v1"))));
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Some((json, Form::Table("v1beta1"))));
        check("application/json;as=Table;v=v9;g=meta.k8s.io", None);
        check("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some((json, Form::Metadata)));
        check("application/json;stream=watch", Some((json, Form::Object)));
    }

    #[test]
    fn what_has_no_message_is_json() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "application/vnd.kubernetes.protobuf,application/json".parse().unwrap());
        let without =
            |headers: &HeaderMap| accepted_by(headers, &Query::default(), |_| false).map(|found| found.encoding);
        assert_eq!(without(&headers).unwrap(), Encoding::Json { pretty: false });
        headers.insert(ACCEPT, "application/vnd.kubernetes.protobuf".parse().unwrap());
        assert_eq!(without(&headers).unwrap_err().code, 406);
    }

    #[test]
    fn what_has_no_other_form_is_an_object_or_refused() {
        let encoding = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            accepted_object(&headers, &Query::default()).map_err(|status| status.code)
        };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(encoding(table), Err(406));
        assert_eq!(encoding(&format!("{table},application/yaml")), Ok(Encoding::Yaml));
        assert_eq!(encoding("*/*"), Ok(Encoding::Json { pretty: false }));
    }
}
