//! Jobs. Selector and labels are generated from the uid, unless `manualSelector` is set.

use jiff::Timestamp;
use kedge_meta::{FieldError, LabelSelector, parse_time};
use serde_json::{Map, Value, json};

use super::job_spec;
use crate::strategy::{Column, Propagation, Strategy, WriteContext};
use crate::table::{AGE, NAME, age, column, containers, human_duration, name, selector, wide};
use crate::value::{at, at_mut, child, fill, int, is_set, items, set, text, truth};
use crate::workload::{SPEC, STATUS, TEMPLATE_SPEC, not_negative, template_labels, template_warnings};

/// Of jobs.
pub(super) struct Job;

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "State of the job in one word"),
    column("Completions", "string", "Pods that have succeeded, of those wanted"),
    column("Duration", "string", "Time that the job has taken"),
    AGE,
    wide("Containers", "string", "Names of the template's containers"),
    wide("Images", "string", "Images of the template's containers"),
    wide("Selector", "string", "Labels of its pods"),
];

impl Strategy for Job {
    fn has_generation(&self) -> bool {
        true
    }

    fn default_propagation(&self) -> Propagation {
        Propagation::Orphan
    }

    fn default_propagation_warning(&self) -> Option<&'static str> {
        Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or \
             set propagationPolicy=Orphan to suppress this warning",
        )
    }

    fn default(&self, object: &mut Value) {
        let labels = at(object, &["spec", "template", "metadata", "labels"]).cloned();
        if let Some(spec) = at_mut(object, &["spec"]) {
            job_spec::default_spec(spec);
        }
        if let (Some(labels), Some(metadata)) = (labels, child(object, "metadata"))
            && !is_set(metadata, &["labels"])
        {
            set(metadata, "labels", labels);
        }
        fill(object, "status", json!({}));
    }

    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        if !truth(object, &["spec", "manualSelector"]) {
            generate_selector(object, context.uid);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        generated_selector(object, errors);
        validate_spec(object, errors);
        let (last_index, name) =
            (int(object, &["spec", "completions"]).unwrap_or(0) - 1, text(object, &["metadata", "name"]));
        if text(object, &["spec", "completionMode"]) == "Indexed" && last_index >= 0 {
            let pod = format!("{name}-{last_index}");
            for why in crate::formats::label(&pod) {
                let why = format!("will not able to create pod with invalid DNS label name {pod}: {why}");
                crate::path::Path::root("metadata").child("name").invalid(errors, name, &why);
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        validate_spec(new, errors);
        let elastic = text(new, &["spec", "completionMode"]) == "Indexed"
            && int(new, &["spec", "completions"]) == int(new, &["spec", "parallelism"]);
        const FIELDS: &[&str] = &[
            "completions",
            "selector",
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
            "managedBy",
            "successPolicy",
        ];
        for field in FIELDS.iter().filter(|field| **field != "completions" || !elastic) {
            SPEC.child(field).immutable(errors, at(new, &["spec", field]), at(old, &["spec", field]));
        }
        if !same_template(new, old) {
            SPEC.child("template").immutable(errors, at(new, &["spec", "template"]), at(old, &["spec", "template"]));
        }
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        not_negative(&new["status"], &["active", "succeeded", "failed", "ready", "terminating"], &STATUS, errors);
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = template_warnings(new);
        let (completions, parallelism) = (int(new, &["spec", "completions"]), int(new, &["spec", "parallelism"]));
        let indexed = text(new, &["spec", "completionMode"]) == "Indexed";
        if old.is_none() && indexed && completions.unwrap_or(0) > 100_000 && parallelism.unwrap_or(0) > 10_000 {
            warnings.push(
                "spec.parallelism: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher \
                 than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
                    .to_owned(),
            );
        }
        warnings
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (names, images) = containers(at(object, TEMPLATE_SPEC));
        vec![
            name(object),
            Value::from(status(object)),
            Value::from(completions(object)),
            Value::from(duration(object, now)),
            age(object, now),
            names,
            images,
            Value::from(selector(object, &["spec", "selector"])),
        ]
    }

    fn fields(&self) -> &[&str] {
        &["status.successful"]
    }

    fn unsupported_field(&self, path: &str) -> String {
        format!("field label \"{path}\" not supported for Job")
    }

    fn field(&self, object: &Value, _path: &str) -> String {
        int(object, &["status", "succeeded"]).unwrap_or(0).to_string()
    }

    fn pod_spec_path(&self) -> Option<&[&str]> {
        Some(TEMPLATE_SPEC)
    }
}

fn generate_selector(job: &mut Value, uid: &str) {
    let name = text(job, &["metadata", "name"]).to_owned();
    let Some(spec) = child(job, "spec") else { return };
    let template_labels = child(spec, "template")
        .and_then(|template| child(template, "metadata"))
        .and_then(|metadata| child(metadata, "labels"));
    if let Some(labels) = template_labels {
        for prefix in ["", "batch.kubernetes.io/"] {
            fill(labels, &format!("{prefix}job-name"), name.as_str());
            fill(labels, &format!("{prefix}controller-uid"), uid);
        }
    }
    if let Some(labels) = child(spec, "selector").and_then(|selector| child(selector, "matchLabels")) {
        fill(labels, "batch.kubernetes.io/controller-uid", uid);
    }
}

fn generated_selector(job: &Value, errors: &mut Vec<FieldError>) {
    if truth(job, &["spec", "manualSelector"]) {
        return;
    }
    let Some(found) = at(job, &["spec", "selector"]) else { return };
    let (uid, name) = (text(job, &["metadata", "uid"]), text(job, &["metadata", "name"]));
    let template = SPEC.child("template");
    let metadata = template.child("metadata");
    let path = metadata.child("labels");
    let expected = [("controller-uid", uid), ("job-name", name)];
    for prefix in ["batch.kubernetes.io/", ""] {
        for (key, value) in expected {
            let key = format!("{prefix}{key}");
            let label = at(job, &["spec", "template", "metadata", "labels", &key]).and_then(Value::as_str);
            if label != Some(value) {
                let labels = job["spec"]["template"]["metadata"]["labels"].clone();
                match label {
                    None => path.key(&key).required(errors, &format!("must be '{value}'")),
                    Some(_) => path.key(&key).invalid(errors, labels, &format!("must be '{value}'")),
                }
            }
        }
    }
    let get = |key: &str| {
        let key = key.strip_prefix("batch.kubernetes.io/").unwrap_or(key);
        expected.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    };
    if LabelSelector::from_object(found).is_some_and(|selector| !selector.matches_with(get)) {
        SPEC.child("selector").invalid(errors, found.clone(), "`selector` not auto-generated");
    }
}

fn validate_spec(job: &Value, errors: &mut Vec<FieldError>) {
    let spec = &job["spec"];
    job_spec::validate(spec, &SPEC, errors);
    match at(spec, &["selector"]) {
        None => SPEC.child("selector").required(errors, ""),
        Some(_) => template_labels(spec, errors),
    }
}

/// Whether the template changed only where a suspended job that has not started may change it.
fn same_template(new: &Value, old: &Value) -> bool {
    let mutable = truth(old, &["spec", "suspend"]) && !is_set(old, &["status", "startTime"]);
    if at(new, &["spec", "template"]) == at(old, &["spec", "template"]) {
        return true;
    }
    if !mutable {
        return false;
    }
    let strip = |job: &Value| -> Map<String, Value> {
        let mut template = job["spec"]["template"].clone();
        for field in ["labels", "annotations"] {
            template["metadata"].as_object_mut().and_then(|metadata| metadata.remove(field));
        }
        if let Some(spec) = template["spec"].as_object_mut() {
            ["nodeSelector", "tolerations", "schedulingGates", "affinity"]
                .iter()
                .for_each(|field| drop(spec.remove(*field)));
        }
        template.as_object().cloned().unwrap_or_default()
    };
    strip(new) == strip(old)
}

fn status(job: &Value) -> &'static str {
    let has = |kind: &str| {
        let conditions = items(job, &["status", "conditions"]);
        conditions.iter().find(|one| text(one, &["type"]) == kind).is_some_and(|one| text(one, &["status"]) == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if is_set(job, &["metadata", "deletionTimestamp"]) {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = int(job, &["status", "succeeded"]).unwrap_or(0);
    match (int(job, &["spec", "completions"]), int(job, &["spec", "parallelism"]).unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let time = |field: &str| parse_time(text(job, &["status", field]));
    match time("startTime") {
        None => String::new(),
        Some(start) => human_duration(time("completionTime").unwrap_or(now).duration_since(start).as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    fn job(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "once", "namespace": "default"}, "spec": spec});
        Job.default(&mut object);
        object
    }

    fn once() -> Value {
        json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b:1"}]}}})
    }

    #[test]
    fn selectors_are_generated_and_pass() {
        let kind = builtin("batch", "v1", "Job").unwrap();
        let mut object = job(once());
        kind.prepare_create(&mut object, &WriteContext { now: Timestamp::UNIX_EPOCH, uid: "u-1" });
        assert_eq!(object["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}));
        assert_eq!(
            object["spec"]["template"]["metadata"]["labels"],
            json!({"batch.kubernetes.io/controller-uid": "u-1", "batch.kubernetes.io/job-name": "once",
                "controller-uid": "u-1", "job-name": "once"})
        );
        assert_eq!(kind.validate_create(&object), []);
        let mut changed = object.clone();
        changed["spec"]["template"]["spec"]["containers"][0]["image"] = json!("b:2");
        let errors = kind.validate_update(&changed, &object, "");
        assert_eq!(errors.len(), 1);
        let text = errors[0].to_string();
        assert!(text.starts_with("spec.template: Invalid value") && text.ends_with("field is immutable"), "{text}");
    }

    #[test]
    fn defaults_depend_on_each_other() {
        let spec = |spec: Value| job(spec)["spec"].clone();
        let plain = spec(once());
        assert_eq!(
            (&plain["completions"], &plain["parallelism"], &plain["backoffLimit"]),
            (&json!(1), &json!(1), &json!(6))
        );
        assert_eq!((&plain["completionMode"], &plain["suspend"]), (&json!("NonIndexed"), &json!(false)));
        assert_eq!(plain["podReplacementPolicy"], "TerminatingOrFailed");
        let parallel = spec(json!({"parallelism": 2, "template": {"spec": {}}, "podFailurePolicy": {"rules": []}}));
        assert_eq!((parallel.get("completions"), &parallel["podReplacementPolicy"]), (None, &json!("Failed")));
    }

    #[test]
    fn restart_policies_are_checked() {
        let mut spec = once();
        spec["template"]["spec"]["restartPolicy"] = json!("Always");
        let mut errors = Vec::new();
        job_spec::validate(&job(spec)["spec"], &SPEC, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
    }

    #[test]
    fn rows_show_progress() {
        let now = "2026-01-01T00:01:30Z".parse().unwrap();
        let check = |status: Value, expected: [&str; 3]| {
            let mut object = job(once());
            object["status"] = status;
            let cells = Job.row(&object, now);
            let shown: Vec<&str> = cells[1..4].iter().filter_map(Value::as_str).collect();
            assert_eq!(shown, expected);
        };
        check(json!({}), ["Running", "0/1", ""]);
        check(json!({"startTime": "2026-01-01T00:00:00Z", "active": 1}), ["Running", "0/1", "90s"]);
        check(
            json!({"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:05Z", "succeeded": 1,
                "conditions": [{"type": "Complete", "status": "True"}]}),
            ["Complete", "1/1", "5s"],
        );
    }
}
