//! What a deletion is told: grace, preconditions, propagation, dry run.

use kedge_meta::{ApiStatus, FieldError, FieldPath};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::Call;
use crate::core::Core;
use crate::query::{Query, check_dry_run};
use crate::registry::Resource;
use crate::write::{self, Expected};
use crate::{negotiate, object};

/// `metav1.DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct DeleteOptions {
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) preconditions: Preconditions,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) propagation_policy: Option<String>,
    pub(crate) dry_run: Vec<String>,
}

/// What the object must be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Preconditions {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

impl DeleteOptions {
    /// From the body, or from the query where there is none.
    pub(crate) async fn read(core: &Core, call: &mut Call) -> Result<Self, ApiStatus> {
        let body = call.read_body(core.config.max_request_body_bytes).await?;
        let options = match body.is_empty() {
            true => Self::of_query(&call.query)?,
            false => {
                let format = negotiate::body_format(&call.headers)?;
                let mut expected = Expected::builtin("", "v1", "DeleteOptions", "v1");
                let found =
                    kedge_schema::peek_type_meta(&body, format).map_err(|e| e.unrecognized(expected.kind, &body))?;
                // Clients may send it in the group and version of the resource.
                expected.api_version = if found.api_version.is_empty() { "v1" } else { &found.api_version };
                let (options, _) = write::decode_body(&body, format, expected, kedge_schema::FieldValidation::Ignore)?;
                let mut options: Self =
                    serde_json::from_value(options).map_err(|error| ApiStatus::bad_request(error.to_string()))?;
                options.dry_run.extend(call.query.all("dryRun").map(str::to_owned));
                options
            }
        };
        options.check()?;
        Ok(options)
    }

    fn of_query(query: &Query) -> Result<Self, ApiStatus> {
        Ok(Self {
            grace_period_seconds: query.integer("gracePeriodSeconds")?,
            preconditions: Preconditions::default(),
            orphan_dependents: query.optional_flag("orphanDependents"),
            propagation_policy: query.non_empty("propagationPolicy").map(str::to_owned),
            dry_run: query.all("dryRun").filter(|value| !value.is_empty()).map(str::to_owned).collect(),
        })
    }

    /// The rules of upstream's `ValidateDeleteOptions`.
    fn check(&self) -> Result<(), ApiStatus> {
        let mut errors = Vec::new();
        let path = FieldPath::new("propagationPolicy");
        if self.propagation_policy.is_some() && self.orphan_dependents.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, &json!(self.propagation_policy), why));
        }
        let supported = ["Background", "Foreground", "Orphan", "nil"];
        if self.propagation_policy.as_ref().is_some_and(|policy| !supported[..3].contains(&policy.as_str())) {
            errors.push(FieldError::not_supported(&path, &json!(self.propagation_policy), &supported));
        }
        if !errors.is_empty() {
            return Err(ApiStatus::invalid("meta.k8s.io", "DeleteOptions", "", &errors));
        }
        self.is_dry_run().map(|_| ())
    }

    pub(crate) fn is_dry_run(&self) -> Result<bool, ApiStatus> {
        check_dry_run(&self.dry_run.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What webhooks are told of them.
    pub(super) fn described(&self) -> Value {
        let mut described = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        let preconditions = &self.preconditions;
        let dry_run = Some(&self.dry_run).filter(|list| !list.is_empty());
        for (name, value) in [
            ("gracePeriodSeconds", json!(self.grace_period_seconds)),
            ("orphanDependents", json!(self.orphan_dependents)),
            ("propagationPolicy", json!(self.propagation_policy)),
            ("dryRun", json!(dry_run)),
        ] {
            if !value.is_null() {
                described[name] = value;
            }
        }
        for (name, value) in [("uid", &preconditions.uid), ("resourceVersion", &preconditions.resource_version)] {
            if let Some(value) = value {
                described["preconditions"][name] = json!(value);
            }
        }
        described
    }

    pub(crate) fn check_preconditions(&self, resource: &Resource, object: &Value) -> Result<(), ApiStatus> {
        let fields = [
            ("UID", &self.preconditions.uid, object::meta(object, "uid")),
            ("ResourceVersion", &self.preconditions.resource_version, object::meta(object, "resourceVersion")),
        ];
        for (name, wanted, actual) in fields {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != actual) {
                let why =
                    format!("Precondition failed: {name} in precondition: {wanted}, {name} in object meta: {actual}");
                return Err(ApiStatus::conflict(&resource.group_resource, object::name(object), &why));
            }
        }
        Ok(())
    }
}
