//! The names that claims, classes and slices of devices share, and lists of bounded length.

use kedge_meta::FieldError;
use serde_json::Value;

use crate::formats;
use crate::path::Path;
use crate::value::{at, items, text};

/// The longest domain and identifier of an attribute's name.
const LONGEST_DOMAIN: usize = 63;
const LONGEST_IDENTIFIER: usize = 32;
const LONGEST_POOL_NAME: usize = 253;

/// What is wrong with the name of a request, counter or device: a label.
pub(super) fn label(path: &Path<'_>, name: &str, errors: &mut Vec<FieldError>) {
    path.check(errors, name, formats::label(name));
}

/// What is wrong with the name of a class, which must be there.
pub(super) fn class_name(path: &Path<'_>, name: &str, errors: &mut Vec<FieldError>) {
    match name {
        "" => path.required(errors, ""),
        name => path.check(errors, name, formats::subdomain(name)),
    }
}

/// What is wrong with the name of a pool: subdomains with slashes between them.
pub(super) fn pool_name(path: &Path<'_>, name: &str, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        return path.required(errors, "");
    }
    if name.len() > LONGEST_POOL_NAME {
        path.too_long(errors, LONGEST_POOL_NAME);
    }
    for part in name.split('/') {
        path.check(errors, part, formats::subdomain(part));
    }
}

/// What is wrong with the name of an attribute or capacity: an identifier, perhaps after a domain and a slash.
pub(super) fn qualified_name(path: &Path<'_>, name: &str, errors: &mut Vec<FieldError>) {
    match name.split_once('/') {
        _ if name.is_empty() => path.required(errors, "name required"),
        None => identifier(path, name, errors),
        Some((domain, rest)) => {
            match domain {
                "" => path.required(errors, "the domain must not be empty"),
                domain => {
                    if domain.len() > LONGEST_DOMAIN {
                        path.too_long(errors, LONGEST_DOMAIN);
                    }
                    path.check(errors, domain, formats::subdomain(domain));
                }
            }
            match rest {
                "" => path.required(errors, "the name must not be empty"),
                rest => identifier(path, rest, errors),
            }
        }
    }
}

/// The same where the domain must be there.
pub(super) fn fully_qualified_name(path: &Path<'_>, name: &str, errors: &mut Vec<FieldError>) {
    qualified_name(path, name, errors);
    if !name.is_empty() && !name.contains('/') {
        path.invalid(errors, name, "must include a domain");
    }
}

fn identifier(path: &Path<'_>, name: &str, errors: &mut Vec<FieldError>) {
    if name.len() > LONGEST_IDENTIFIER {
        path.too_long(errors, LONGEST_IDENTIFIER);
    }
    let mut letters = name.chars();
    let starts_well = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    if !starts_well || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                   alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for \
                   validation is '[A-Za-z_][A-Za-z0-9_]*')";
        path.invalid(errors, name, why);
    }
}

/// Checks each item of a list that has at most `most` of them.
pub(super) fn each(
    object: &Value,
    field: &str,
    path: &Path<'_>,
    most: usize,
    errors: &mut Vec<FieldError>,
    check: impl Fn(&Value, &Path<'_>, &mut Vec<FieldError>),
) {
    let path = path.child(field);
    let list = items(object, &[field]);
    if list.len() > most {
        path.too_many(errors, list.len(), most);
    }
    for (index, item) in list.iter().enumerate() {
        check(item, &path.index(index), errors);
    }
}

/// Checks each item of such a list, in which no two items may have one key.
pub(super) fn each_once(
    object: &Value,
    field: &str,
    path: &Path<'_>,
    (most, key): (usize, impl Fn(&Value) -> String),
    errors: &mut Vec<FieldError>,
    check: impl Fn(&Value, &Path<'_>, &mut Vec<FieldError>),
) {
    each(object, field, path, most, errors, check);
    let list = items(object, &[field]);
    for (index, item) in list.iter().enumerate() {
        let own = key(item);
        if list[..index].iter().any(|earlier| key(earlier) == own) {
            path.child(field).index(index).duplicate(errors, own);
        }
    }
}

/// The name of an item.
pub(super) fn own_name(item: &Value) -> String {
    text(item, &["name"]).to_owned()
}

/// What is wrong with an opaque configuration.
pub(super) fn configuration(config: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const LARGEST: usize = 10 * 1024;
    let path = path.child("opaque");
    let Some(opaque) = at(config, &["opaque"]) else { return path.required(errors, "") };
    crate::storage::driver_name(&path.child("driver"), text(opaque, &["driver"]), errors);
    let path = path.child("parameters");
    match at(opaque, &["parameters"]) {
        None => path.required(errors, ""),
        Some(parameters) if parameters.to_string().len() > LARGEST => path.too_long(errors, LARGEST),
        Some(parameters) if !parameters.is_object() => {
            path.invalid(errors, "<value omitted>", "must be a valid JSON object");
        }
        Some(_) => {}
    }
}
