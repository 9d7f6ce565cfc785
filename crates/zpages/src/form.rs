//! In which form a page is wanted: text, or a kind of `config.k8s.io` in JSON or YAML.

use kedge_meta::{ApiStatus, MediaRange, StatusReason};
use serde_json::Value;

use crate::Page;

const GROUP: &str = "config.k8s.io";

/// A form that can be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Object { is_yaml: bool, version: &'static str },
}

/// The first form of `kind` that is wanted and can be had; text where nothing is wanted. The error is 406.
pub(crate) fn wanted(kind: &str, ranges: &[MediaRange<'_>]) -> Result<Form, ApiStatus> {
    if ranges.is_empty() {
        return Ok(Form::Text);
    }
    ranges.iter().find_map(|range| form(kind, range)).ok_or_else(not_acceptable)
}

fn form(kind: &str, range: &MediaRange<'_>) -> Option<Form> {
    let asked = (range.get("g"), range.get("v"), range.get("as"));
    let is_yaml = match (range.name.as_str(), asked) {
        ("text/plain" | "text/*" | "*/*", (None, None, None)) => return Some(Form::Text),
        ("application/json" | "application/*" | "*/*", _) => false,
        ("application/yaml", _) => true,
        _ => return None,
    };
    let version = match asked {
        (Some(GROUP), Some("v1beta1"), Some(wanted)) if wanted == kind => "v1beta1",
        (Some(GROUP), Some("v1alpha1"), Some(wanted)) if wanted == kind => "v1alpha1",
        _ => return None,
    };
    Some(Form::Object { is_yaml, version })
}

fn not_acceptable() -> ApiStatus {
    let supported = "application/json, application/yaml, text/plain";
    let text = format!("only the following media types are accepted: {supported}");
    ApiStatus::new(406, StatusReason::NotAcceptable, text)
}

/// A page for people; the head is the same for all of them.
pub(crate) fn text_page(component: &str, page: &str, lines: &str) -> Page {
    let text = format!(
        "\n{component} {page}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
         guarantees and is for debugging purposes only.\n{lines}"
    );
    Page { content_type: "text/plain; charset=utf-8", text, warning: None }
}

/// A page for programs: `object` has everything but its kind, version and name.
pub(crate) fn object_page(
    (kind, component): (&str, &str),
    (is_yaml, version): (bool, &str),
    deprecated: &'static str,
    mut object: Value,
) -> Page {
    object["kind"] = kind.into();
    object["apiVersion"] = format!("{GROUP}/{version}").into();
    object["metadata"] = serde_json::json!({"name": component});
    let (content_type, text) = match is_yaml {
        true => ("application/yaml", serde_yaml::to_string(&object).unwrap_or_default()),
        false => ("application/json", object.to_string()),
    };
    Page { content_type, text, warning: (version == "v1alpha1").then_some(deprecated) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<Form>) {
        let ranges = kedge_meta::accept_ranges([accept]);
        assert_eq!(wanted("Statusz", &ranges).ok(), expected, "{accept}");
    }

    #[test]
    fn people_get_text_and_programs_what_they_ask_for() {
        let object = |is_yaml, version| Some(Form::Object { is_yaml, version });
        check("", Some(Form::Text));
        check("*/*", Some(Form::Text));
        check("application/json, text/plain;q=0.5", Some(Form::Text));
        check("application/json", None);
        check("application/json;g=config.k8s.io;v=v1beta1;as=Flagz", None);
        check("application/json;g=config.k8s.io;v=v1beta1;as=Flagz, */*", Some(Form::Text));
        check("application/vnd.kubernetes.protobuf;g=config.k8s.io;v=v1beta1;as=Statusz", None);
        check("application/json;g=config.k8s.io;v=v1beta1;as=Statusz", object(false, "v1beta1"));
        check("application/yaml;v=v1alpha1;g=config.k8s.io;as=Statusz", object(true, "v1alpha1"));
    }
}
