//! StatefulSets.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use super::deployment::replicas;
use crate::formats;
use crate::metadata::{annotation_errors, label_errors};
use crate::path::Path;
use crate::strategy::{Column, NameRule, ScalePaths, Strategy, WriteContext};
use crate::table::{AGE, NAME, age, column, containers, name, wide};
use crate::value::{at, at_mut, child, fill, fill_text, int, is_set, items_mut, remove, text};
use crate::workload::{
    SPEC, STATUS, TEMPLATE_SPEC, amount, at_most_all, default_workload, fill_spec, int_or_percent, not_above,
    not_negative, selector_errors, template_warnings,
};

/// Of statefulsets.
pub(super) struct StatefulSet;

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Pods that are ready, of those wanted"),
    AGE,
    wide("Containers", "string", "Names of the template's containers"),
    wide("Images", "string", "Images of the template's containers"),
];

/// Fields of the spec that an update may change.
const CHANGEABLE: &[&str] = &[
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

/// Of upstream's gate `MaxUnavailableStatefulSet`, which is off by default.
const MAX_UNAVAILABLE: &[&str] = &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"];

impl Strategy for StatefulSet {
    /// Pods take the set's name as part of their host name.
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_workload(object, &["replicas", "availableReplicas"]);
        fill_spec(object, "replicas", 1);
        fill_spec(object, "revisionHistoryLimit", 10);
        let Some(spec) = child(object, "spec") else { return };
        fill_text(spec, "podManagementPolicy", "OrderedReady");
        fill(spec, "serviceName", "");
        if let Some(strategy) = child(spec, "updateStrategy") {
            if text(strategy, &["type"]).is_empty() {
                fill_text(strategy, "type", "RollingUpdate");
                fill(strategy, "rollingUpdate", json!({}));
            }
            let rolling = text(strategy, &["type"]) == "RollingUpdate";
            if let Some(update) = strategy.get_mut("rollingUpdate").filter(|_| rolling) {
                fill(update, "partition", 0);
            }
        }
        if let Some(policy) = child(spec, "persistentVolumeClaimRetentionPolicy") {
            fill_text(policy, "whenDeleted", "Retain");
            fill_text(policy, "whenScaled", "Retain");
        }
        for claim in items_mut(spec, &["volumeClaimTemplates"]) {
            fill(claim, "apiVersion", "v1");
            fill(claim, "kind", "PersistentVolumeClaim");
            crate::core::persistent_volume_claim::default_claim(claim);
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        drop_max_unavailable(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if at(old, MAX_UNAVAILABLE).is_none() {
            drop_max_unavailable(new);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        validate_spec(&object["spec"], errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        validate_spec(&new["spec"], errors);
        let fields = |object: &Value| -> Vec<(String, Value)> {
            crate::value::entries(object, &["spec"])
                .filter(|(field, _)| !CHANGEABLE.contains(&field.as_str()))
                .map(|(field, value)| (field.clone(), value.clone()))
                .collect()
        };
        if fields(new) != fields(old) {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                       'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                       'minReadySeconds' are forbidden";
            SPEC.forbidden(errors, why);
        }
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        let status = &new["status"];
        const COUNTS: &[&str] = &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        not_negative(status, &["replicas"], &STATUS, errors);
        not_negative(status, COUNTS, &STATUS, errors);
        not_negative(status, &["observedGeneration", "collisionCount"], &STATUS, errors);
        not_above(status, COUNTS, "replicas", "status.replicas", errors);
        not_above(status, &["availableReplicas"], "readyReplicas", "status.readyReplicas", errors);
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        template_warnings(new)
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |path: &[&str]| int(object, path).unwrap_or(0);
        let (names, images) = containers(at(object, TEMPLATE_SPEC));
        let ready = format!("{}/{}", count(&["status", "readyReplicas"]), count(&["spec", "replicas"]));
        vec![name(object), Value::from(ready), age(object, now), names, images]
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        Some(replicas())
    }

    fn pod_spec_path(&self) -> Option<&[&str]> {
        Some(TEMPLATE_SPEC)
    }
}

fn drop_max_unavailable(object: &mut Value) {
    if let Some(rolling) = at_mut(object, &MAX_UNAVAILABLE[..3]) {
        remove(rolling, MAX_UNAVAILABLE[3]);
    }
}

fn validate_spec(spec: &Value, errors: &mut Vec<FieldError>) {
    let policy = text(spec, &["podManagementPolicy"]);
    if !matches!(policy, "OrderedReady" | "Parallel") {
        SPEC.child("podManagementPolicy").invalid(errors, policy, "must be 'OrderedReady' or 'Parallel'");
    }
    strategy_errors(&spec["updateStrategy"], &SPEC.child("updateStrategy"), errors);
    for when in ["whenDeleted", "whenScaled"] {
        let policy = text(spec, &["persistentVolumeClaimRetentionPolicy", when]);
        let path = SPEC.child("persistentVolumeClaimRetentionPolicy");
        path.child(when).one_of(errors, policy, &["Retain", "Delete"]);
    }
    not_negative(spec, &["replicas", "minReadySeconds"], &SPEC, errors);
    if let Some(start) = int(spec, &["ordinals", "start"]) {
        SPEC.child("ordinals.start").not_negative(errors, start);
    }
    selector_errors(spec, "statefulset", errors);
    // The template's volumes are those of the claims too, so its pod spec is checked only when pods are made.
    let template = SPEC.child("template");
    label_errors(&spec["template"]["metadata"], "labels", &template, errors);
    annotation_errors(&spec["template"]["metadata"], &template.child("annotations"), errors);
    let path = template.child("spec");
    path.child("restartPolicy").one_of(errors, text(spec, &["template", "spec", "restartPolicy"]), &["Always"]);
    if at(spec, &["template", "spec", "activeDeadlineSeconds"]).is_some() {
        let why = "activeDeadlineSeconds in StatefulSet is not Supported";
        path.child("activeDeadlineSeconds").forbidden(errors, why);
    }
    let service = text(spec, &["serviceName"]);
    if is_set(spec, &["serviceName"]) {
        SPEC.child("serviceName").check(errors, service, formats::subdomain(service));
    }
}

fn strategy_errors(strategy: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let field = path.child("rollingUpdate");
    match (text(strategy, &["type"]), at(strategy, &["rollingUpdate"])) {
        ("", _) => path.required(errors, ""),
        ("OnDelete", Some(rolling)) => {
            field.invalid(errors, rolling.clone(), "only allowed for updateStrategy 'RollingUpdate'");
        }
        ("RollingUpdate", Some(rolling)) => {
            not_negative(rolling, &["partition"], &field, errors);
            if let Some(unavailable) = at(rolling, &["maxUnavailable"]) {
                let path = field.child("maxUnavailable");
                int_or_percent(Some(unavailable), &path, errors);
                if amount(Some(unavailable)) == 0 {
                    path.invalid(errors, unavailable.clone(), "cannot be 0");
                }
                at_most_all(Some(unavailable), &path, errors);
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => path.invalid(errors, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_fields_may_change() {
        let mut old = json!({"metadata": {"name": "db"}, "spec": {"serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}}, "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}}}});
        StatefulSet.default(&mut old);
        let check = |change: &dyn Fn(&mut Value), refused: bool| {
            let mut new = old.clone();
            change(&mut new["spec"]);
            let mut errors = Vec::new();
            StatefulSet.validate_update(&new, &old, &mut errors);
            assert_eq!(!errors.is_empty(), refused, "{errors:?}");
        };
        check(&|spec| spec["replicas"] = json!(3), false);
        check(&|spec| spec["updateStrategy"]["rollingUpdate"]["partition"] = json!(1), false);
        check(&|spec| spec["serviceName"] = json!("other"), true);
        check(&|spec| spec["podManagementPolicy"] = json!("Parallel"), true);
    }

    #[test]
    fn how_many_may_be_unavailable_is_said_by_sets_that_said_it_before() {
        let set = |unavailable: Option<i32>| {
            let rolling = match unavailable {
                Some(unavailable) => json!({"partition": 0, "maxUnavailable": unavailable}),
                None => json!({"partition": 0}),
            };
            json!({"metadata": {"name": "db"}, "spec": {"updateStrategy": {"rollingUpdate": rolling}}})
        };
        let check = |new: Option<i32>, old: Option<i32>, expected: Option<i32>| {
            let mut updated = set(new);
            StatefulSet.prepare_update(&mut updated, &set(old));
            assert_eq!(updated, set(expected), "{new:?} {old:?}");
        };
        check(Some(2), None, None);
        check(Some(2), Some(1), Some(2));
        check(None, Some(1), None);
        let mut created = set(Some(2));
        drop_max_unavailable(&mut created);
        assert_eq!(created, set(None));
        let mut on_delete = json!({"spec": {"updateStrategy": {"type": "OnDelete"}}});
        drop_max_unavailable(&mut on_delete);
        assert_eq!(on_delete, json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}));
    }
}
