//! What is wrong with a definition: schemas, columns, subresources, selectable fields, conversion, approval.
//!
//! Names, scope and versions are checked where the kind itself is (`kedge_kinds`). The rules and texts are upstream's.

use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::json::{at, items, text, texts, truth};
use crate::place::Place;
use crate::version::Version;
use crate::{schema_rules, structural};

/// How many selectable fields a version may have.
const MAX_SELECTABLE: usize = 8;

const APPROVAL: &str = "api-approved.kubernetes.io";

/// What is wrong with a definition; `old` is what it was before an update.
pub(crate) fn check(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let (mut errors, spec) = (Vec::new(), Place::ROOT.child("spec"));
    let versions = spec.child("versions");
    for (index, version) in items(definition, &["spec", "versions"]).iter().enumerate() {
        let place = versions.index(index);
        let same =
            |known: &&Value| known.get("name") == version.get("name") && known.get("schema") == version.get("schema");
        let known = old.is_some_and(|old| items(old, &["spec", "versions"]).iter().any(|known| same(&known)));
        if !known {
            schema(version, &place, &mut errors);
        }
        subresources(version, &place.child("subresources"), &mut errors);
        columns(version, &place.child("additionalPrinterColumns"), &mut errors);
        selectable(version, &place.child("selectableFields"), &mut errors);
        deprecation(version, &place, &mut errors);
    }
    if truth(definition, &["spec", "preserveUnknownFields"]) {
        let path = spec.child("preserveUnknownFields").path();
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
            spec.versions[*].schema instead";
        errors.push(FieldError::invalid(&path, &json!(true), why));
    }
    conversion(definition, &spec.child("conversion"), &mut errors);
    if old.is_none() {
        approval_error(definition, &mut errors);
    }
    errors
}

fn schema(version: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let Some(schema) = at(version, &["schema", "openAPIV3Schema"]) else { return };
    let place = place.child("schema");
    if truth(schema, &["nullable"]) {
        let path = place.child("openAPIV3Schema.nullable").path();
        errors.push(FieldError::forbidden(&path, "nullable cannot be true at the root"));
    }
    let place = place.child("openAPIV3Schema");
    let wrong = structural::check(schema, &place);
    let whole = wrong.is_empty();
    errors.extend(wrong);
    if whole {
        errors.extend(schema_rules::check_schema(schema, &place));
    }
}

fn simple_path(path: &str, place: &Place<'_>, errors: &mut Vec<FieldError>) -> bool {
    if path.starts_with('.') {
        return true;
    }
    let why = "must be a simple json path starting with .";
    errors.push(FieldError::invalid(&place.path(), &json!(path), why));
    false
}

fn subresources(version: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let Some(scale) = at(version, &["subresources", "scale"]) else { return };
    let required = [
        ("specReplicasPath", "scale.specReplicasPath", ".spec.", ".spec"),
        ("statusReplicasPath", "scale.statusReplicasPath", ".status.", ".status"),
    ];
    for (field, shown, prefix, root) in required {
        let (path, place) = (text(scale, &[field]), place.child(shown));
        if path.is_empty() {
            errors.push(FieldError::required(&place.path(), ""));
        } else if simple_path(path, &place, errors) && !path.starts_with(prefix) {
            let why = format!("should be a json path under {root}");
            errors.push(FieldError::invalid(&place.path(), &json!(path), &why));
        }
    }
    let (path, place) = (text(scale, &["labelSelectorPath"]), place.child("scale.labelSelectorPath"));
    let under = path.starts_with(".spec.") || path.starts_with(".status.");
    if !path.is_empty() && simple_path(path, &place, errors) && !under {
        let why = "should be a json path under either .spec or .status";
        errors.push(FieldError::invalid(&place.path(), &json!(path), why));
    }
}

fn columns(version: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    const TYPES: &str = "boolean,date,integer,number,string";
    const FORMATS: &str = "byte,date,date-time,double,float,int32,int64,password";
    for (index, column) in items(version, &["additionalPrinterColumns"]).iter().enumerate() {
        let place = place.index(index);
        let words = |field: &str| text(column, &[field]);
        if words("name").is_empty() {
            errors.push(FieldError::required(&place.child("name").path(), ""));
        }
        let (kind, path) = (words("type"), place.child("type").path());
        let why = format!("must be one of {TYPES}");
        match kind {
            "" => errors.push(FieldError::required(&path, &why)),
            kind if TYPES.split(',').any(|known| known == kind) => {}
            kind => errors.push(FieldError::invalid(&path, &json!(kind), &why)),
        }
        let format = words("format");
        if !format.is_empty() && !FORMATS.split(',').any(|known| known == format) {
            let why = format!("must be one of {FORMATS}");
            errors.push(FieldError::invalid(&place.child("format").path(), &json!(format), &why));
        }
        let place = place.child("JSONPath");
        match words("jsonPath") {
            "" => errors.push(FieldError::required(&place.path(), "")),
            path => {
                simple_path(path, &place, errors);
            }
        }
    }
}

fn selectable(version: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let fields = items(version, &["selectableFields"]);
    if fields.is_empty() {
        return;
    }
    let read = Version::read(version);
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let (own, item) = (text(field, &["jsonPath"]), place.index(index));
        let path = item.child("jsonPath").path();
        if own.is_empty() {
            errors.push(FieldError::required(&path, ""));
            continue;
        }
        let mut invalid = |why: &str| errors.push(FieldError::invalid(&path, &json!(own), why));
        let plain = own.starts_with('.') && !own.contains(['[', ']']);
        if plain && own.starts_with(".metadata") {
            invalid("must not point to fields in metadata");
        } else {
            match read.property(own).filter(|_| plain) {
                None => invalid("is an invalid path: does not refer to a valid field"),
                Some(node) if !matches!(node.kind.as_str(), "string" | "boolean" | "integer") => invalid(
                    "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                     are allowed.",
                ),
                Some(_) => {}
            }
        }
        match seen.contains(&own) {
            true => errors.push(FieldError::duplicate(&path, &json!(own))),
            false => seen.push(own),
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(&place.path(), seen.len(), MAX_SELECTABLE));
    }
}

fn deprecation(version: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let Some(warning) = at(version, &["deprecationWarning"]).and_then(Value::as_str) else { return };
    let path = place.child("deprecationWarning").path();
    let mut invalid = |why: &str| errors.push(FieldError::invalid(&path, &json!(warning), why));
    if !truth(version, &["deprecated"]) {
        return invalid("can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        invalid("must be <= 256 characters long");
    }
    if warning.is_empty() {
        invalid("must not be an empty string");
    }
    if let Some(index) = warning.char_indices().find(|(_, letter)| letter.is_control()).map(|(index, _)| index) {
        let why =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {index}");
        invalid(&why);
    }
}

fn conversion(definition: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let Some(conversion) = at(definition, &["spec", "conversion"]) else { return };
    let strategy = text(conversion, &["strategy"]);
    let path = place.child("strategy").path();
    let client = at(conversion, &["webhook", "clientConfig"]);
    let reviews: Vec<&str> = texts(conversion, &["webhook", "conversionReviewVersions"]).collect();
    let (of_client, of_reviews) = (place.child("webhookClientConfig"), place.child("conversionReviewVersions"));
    match strategy {
        "" => errors.push(FieldError::required(&path, "")),
        "None" => {
            let why = "should not be set when strategy is not set to Webhook";
            if client.is_some() {
                errors.push(FieldError::forbidden(&of_client.path(), why));
            }
            if !reviews.is_empty() {
                errors.push(FieldError::forbidden(&of_reviews.path(), why));
            }
        }
        "Webhook" => {
            match client {
                None => {
                    errors.push(FieldError::required(&of_client.path(), "required when strategy is set to Webhook"))
                }
                Some(client) => client_config(client, &of_client, errors),
            }
            review_versions(&reviews, &of_reviews, errors);
        }
        other => errors.push(FieldError::not_supported(&path, &json!(other), &["None", "Webhook"])),
    }
}

fn client_config(client: &Value, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let (url, service) = (at(client, &["url"]).and_then(Value::as_str), at(client, &["service"]));
    match (url, service) {
        (Some(_), Some(_)) | (None, None) => {
            errors.push(FieldError::required(&place.path(), "exactly one of url or service is required"));
        }
        (Some(url), None) => {
            let path = place.child("url").path();
            let mut invalid = |why: &str| errors.push(FieldError::invalid(&path, &json!(url), why));
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            if scheme != "https" {
                invalid("'https' is the only allowed URL scheme; desired format: https://host[/path]");
            }
            if rest.split('/').next().is_none_or(str::is_empty) {
                invalid("host must be specified; desired format: https://host[/path]");
            }
            for (sign, what) in [('@', "user information"), ('#', "fragments"), ('?', "query parameters")] {
                if rest.contains(sign) {
                    invalid(&format!("{what} are not permitted in the URL"));
                }
            }
        }
        (None, Some(service)) => {
            let place = place.child("service");
            for (field, why) in [("name", "service name is required"), ("namespace", "service namespace is required")] {
                if text(service, &[field]).is_empty() {
                    errors.push(FieldError::required(&place.child(field).path(), why));
                }
            }
            let port = service.get("port").and_then(Value::as_i64).unwrap_or(443);
            if !(1..=65535).contains(&port) {
                let why = "port is not valid: must be between 1 and 65535, inclusive";
                errors.push(FieldError::invalid(&place.child("port").path(), &json!(port), why));
            }
        }
    }
}

fn review_versions(versions: &[&str], place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if versions.is_empty() {
        errors.push(FieldError::required(&place.path(), ""));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        if versions[..index].contains(version) {
            errors.push(FieldError::invalid(&place.index(index).path(), &json!(version), "duplicate version"));
        }
    }
    if !versions.iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
        errors.push(FieldError::invalid(&place.path(), &json!(versions), "must include at least one of v1, v1beta1"));
    }
}

/// What a definition in one of Kubernetes' own groups says about its approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApprovalState {
    /// It is in a group of its own.
    NotNeeded,
    /// Approved there.
    Approved(String),
    /// Not approved, on purpose.
    Bypassed(String),
    /// What it says means nothing.
    Invalid(String),
    /// It says nothing.
    Missing(String),
}

/// Whether a definition is approved, where it has to be.
pub(crate) fn approval(definition: &Value) -> ApprovalState {
    let group = text(definition, &["spec", "group"]);
    let within = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if !within("k8s.io") && !within("kubernetes.io") {
        return ApprovalState::NotNeeded;
    }
    let said = text(definition, &["metadata", "annotations", APPROVAL]);
    let is_link = said.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty());
    match said {
        "" => ApprovalState::Missing(format!(
            "protected groups must have approval annotation \"{APPROVAL}\", see \
             https://github.com/kubernetes/enhancements/pull/1111"
        )),
        said if said.starts_with("unapproved") => ApprovalState::Bypassed(said.to_owned()),
        said if is_link => ApprovalState::Approved(said.to_owned()),
        said => ApprovalState::Invalid(format!(
            "protected groups must have approval annotation \"{APPROVAL}\" with either a URL or a reason starting with \
             \"unapproved\", got \"{said}\""
        )),
    }
}

fn approval_error(definition: &Value, errors: &mut Vec<FieldError>) {
    let (metadata, said) = (Place::ROOT.child("metadata"), at(definition, &["metadata", "annotations", APPROVAL]));
    let annotations = metadata.child("annotations");
    let path = annotations.key(APPROVAL).path();
    match approval(definition) {
        ApprovalState::Missing(why) => errors.push(FieldError::required(&path, &why)),
        ApprovalState::Invalid(why) => errors.push(FieldError::invalid(&path, said.unwrap_or(&Value::Null), &why)),
        _ => {}
    }
}
