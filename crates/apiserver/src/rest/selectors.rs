//! What a SubjectAccessReview says of selectors: checked and read in upstream's way.
//!
//! Invariant: what cannot be read is left out and named, as a question with fewer requirements is a wider one.

use kedge_meta::{FieldError, FieldPath, FieldSelector, LabelSelector, formats};
use serde_json::{Value, json};

use crate::object;

/// The selectors of a review. Those of labels are checked, and no authorizer looks at them.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    pub(super) fields: Option<FieldSelector>,
    /// What was left out, for `status.evaluationError`.
    pub(super) ignored: Vec<String>,
}

impl Selectors {
    /// From `spec.resourceAttributes`.
    pub(super) fn read(about: &Value) -> Result<Self, Vec<FieldError>> {
        let path = FieldPath::new("spec").child("resourceAttributes");
        let mut errors = Vec::new();
        let mut given = |name: &str, check: fn(&mut Vec<FieldError>, &FieldPath, &Value)| {
            let selector = about.get(name).filter(|selector| selector.is_object())?;
            check_form(&mut errors, &path.child(name), selector, check);
            Some(selector)
        };
        let fields = given("fieldSelector", check_field_requirement);
        let labels = given("labelSelector", check_label_requirement);
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut selectors = Self::default();
        if let Some(selector) = fields {
            let (read, ignored) = read_fields(selector);
            selectors.ignore("fieldSelector", ignored, read.is_none());
            selectors.fields = read;
        }
        if let Some(selector) = labels {
            let (is_read, ignored) = read_labels(selector);
            selectors.ignore("labelSelector", ignored, !is_read);
        }
        Ok(selectors)
    }

    fn ignore(&mut self, name: &str, ignored: bool, all: bool) {
        if ignored {
            let partially = if all { "" } else { "partially " };
            self.ignored.push(format!("spec.resourceAttributes.{name} {partially}ignored due to parse error"));
        }
    }
}

fn check_form(
    errors: &mut Vec<FieldError>,
    path: &FieldPath,
    selector: &Value,
    check: fn(&mut Vec<FieldError>, &FieldPath, &Value),
) {
    let (raw, requirements) = (object::text(selector, &["rawSelector"]), object::list(selector, &["requirements"]));
    if !raw.is_empty() && !requirements.is_empty() {
        let why = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(&path.child("rawSelector"), &json!(raw), why));
    }
    if raw.is_empty() && requirements.is_empty() {
        let why = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(&path.child("requirements"), &why));
    }
    for (index, requirement) in requirements.iter().enumerate() {
        check(errors, &path.child("requirements").index(index), requirement);
    }
}

fn check_field_requirement(errors: &mut Vec<FieldError>, path: &FieldPath, requirement: &Value) {
    if object::text(requirement, &["key"]).is_empty() {
        errors.push(FieldError::required(&path.child("key"), "must be specified"));
    }
    check_values(errors, path, requirement);
}

fn check_label_requirement(errors: &mut Vec<FieldError>, path: &FieldPath, requirement: &Value) {
    check_values(errors, path, requirement);
    let mut check = |path: &FieldPath, value: &str, wrong: Vec<String>| {
        errors.extend(wrong.iter().map(|why| FieldError::invalid(path, &json!(value), why)));
    };
    let key = object::text(requirement, &["key"]);
    check(&path.child("key"), key, formats::qualified_name(key));
    for (index, value) in object::list(requirement, &["values"]).iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        check(&path.child("values").index(index), value, formats::label_value(value));
    }
}

/// Operators that nobody here knows may have any values: a newer client knows why.
fn check_values(errors: &mut Vec<FieldError>, path: &FieldPath, requirement: &Value) {
    let has_values = !object::list(requirement, &["values"]).is_empty();
    match (object::text(requirement, &["operator"]), has_values) {
        ("In" | "NotIn", false) => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(&path.child("values"), why));
        }
        ("Exists" | "DoesNotExist", true) => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&path.child("values"), why));
        }
        _ => {}
    }
}

/// What can be read, and whether something cannot.
fn read_fields(selector: &Value) -> (Option<FieldSelector>, bool) {
    let requirements = object::list(selector, &["requirements"]);
    if requirements.is_empty() {
        let read = FieldSelector::parse(object::text(selector, &["rawSelector"])).ok();
        return (read.clone(), read.is_none());
    }
    let term = |requirement: &Value| {
        let equals = match object::text(requirement, &["operator"]) {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        let [value] = object::list(requirement, &["values"]) else { return None };
        Some((object::text(requirement, &["key"]).to_owned(), equals, value.as_str()?.to_owned()))
    };
    let terms: Vec<_> = requirements.iter().filter_map(term).collect();
    let is_partial = terms.len() < requirements.len();
    (Some(terms).filter(|terms| !terms.is_empty()).map(FieldSelector::new), is_partial)
}

/// Whether labels can be read, and whether some cannot.
fn read_labels(selector: &Value) -> (bool, bool) {
    let requirements = object::list(selector, &["requirements"]);
    if requirements.is_empty() {
        let is_read = LabelSelector::parse(object::text(selector, &["rawSelector"])).is_ok();
        return (is_read, !is_read);
    }
    let is_known =
        |item: &&Value| matches!(object::text(item, &["operator"]), "In" | "NotIn" | "Exists" | "DoesNotExist");
    let known: Vec<&Value> = requirements.iter().filter(is_known).collect();
    let read = LabelSelector::from_object(&json!({"matchExpressions": known}));
    (read.is_some_and(|selector| !selector.is_everything()), known.len() < requirements.len())
}
