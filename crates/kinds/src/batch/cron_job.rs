//! CronJobs.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use super::{job_spec, schedule};
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, containers, name, or_none, selector, since, wide};
use crate::value::{at, at_mut, child, fill, fill_text, items, text, truth};
use crate::workload::{SPEC, not_negative};

/// Of cronjobs.
pub(super) struct CronJob;

/// Eleven characters are left for the suffix of the jobs' names.
const NAME_LIMIT: usize = 52;

const JOB_POD_SPEC: &[&str] = &["spec", "jobTemplate", "spec", "template", "spec"];

const COLUMNS: &[Column] = &[
    NAME,
    column("Schedule", "string", "When jobs start, in cron form"),
    column("Timezone", "string", "Time zone of the schedule"),
    column("Suspend", "boolean", "Whether no further jobs start"),
    column("Active", "integer", "Jobs that run"),
    column("Last Schedule", "string", "Time since a job last started"),
    AGE,
    wide("Containers", "string", "Names of the template's containers"),
    wide("Images", "string", "Images of the template's containers"),
    wide("Selector", "string", "Labels of the jobs' pods"),
];

impl Strategy for CronJob {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = child(object, "spec") {
            fill_text(spec, "concurrencyPolicy", "Allow");
            fill(spec, "suspend", false);
            fill(spec, "successfulJobsHistoryLimit", 3);
            fill(spec, "failedJobsHistoryLimit", 1);
            if let Some(template) = child(spec, "jobTemplate") {
                fill(template, "metadata", json!({}));
            }
            if let Some(job) = at_mut(spec, &["jobTemplate", "spec"]) {
                job_spec::default_nested(job);
            }
        }
        fill(object, "status", json!({}));
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let name = text(object, &["metadata", "name"]);
        if name.len() > NAME_LIMIT {
            let metadata = Path::root("metadata");
            metadata.child("name").invalid(errors, name, "must be no more than 52 characters");
        }
        validate_spec(&object["spec"], errors);
    }

    fn validate_update(&self, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        validate_spec(&new["spec"], errors);
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (names, images) = containers(at(object, JOB_POD_SPEC));
        let last = match text(object, &["status", "lastScheduleTime"]) {
            "" => "<none>".to_owned(),
            time => since(time, now),
        };
        vec![
            name(object),
            Value::from(text(object, &["spec", "schedule"])),
            Value::from(or_none(text(object, &["spec", "timeZone"]))),
            Value::from(if truth(object, &["spec", "suspend"]) { "True" } else { "False" }),
            Value::from(items(object, &["status", "active"]).len()),
            Value::from(last),
            age(object, now),
            names,
            images,
            Value::from(selector(object, &["spec", "jobTemplate", "spec", "selector"])),
        ]
    }

    fn pod_spec_path(&self) -> Option<&[&str]> {
        Some(JOB_POD_SPEC)
    }
}

fn validate_spec(spec: &Value, errors: &mut Vec<FieldError>) {
    let path = SPEC.child("schedule");
    let cron = text(spec, &["schedule"]);
    if cron.is_empty() {
        path.required(errors, "");
    } else if let Err(why) = schedule::check(cron) {
        path.invalid(errors, cron, &why);
    } else if cron.contains("TZ") {
        path.invalid(errors, cron, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    }
    if let Some(zone) = at(spec, &["timeZone"]).and_then(Value::as_str) {
        match zone {
            "" => SPEC.child("timeZone").invalid(errors, "", "timeZone must be nil or non-empty string"),
            zone if zone.eq_ignore_ascii_case("local") => {
                let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
                SPEC.child("timeZone").invalid(errors, zone, why);
            }
            // DIVERGES: only the shape of the name is checked, since the time zone database lies in files. The
            // controller reports a zone that the machine does not know.
            zone if !is_zone_shape(zone) => {
                SPEC.child("timeZone").invalid(errors, zone, &format!("unknown time zone {zone}"));
            }
            _ => {}
        }
    }
    not_negative(spec, &["startingDeadlineSeconds"], &SPEC, errors);
    let policy = text(spec, &["concurrencyPolicy"]);
    SPEC.child("concurrencyPolicy").required_one_of(errors, policy, &["Allow", "Forbid", "Replace"]);
    let template = SPEC.child("jobTemplate");
    let job = template.child("spec");
    job_spec::validate(&spec["jobTemplate"]["spec"], &job, errors);
    if let Some(selector) = at(spec, &["jobTemplate", "spec", "selector"]) {
        job.child("selector").invalid(errors, selector.clone(), "`selector` will be auto-generated");
    }
    if truth(spec, &["jobTemplate", "spec", "manualSelector"]) {
        let supported = &["nil", "false"];
        let path = job.child("manualSelector").build();
        errors.push(FieldError::not_supported_in_order(&path, &Value::from(true), supported));
    }
    not_negative(spec, &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], &SPEC, errors);
}

/// Whether a text could be a name of the time zone database, such as `Europe/Zurich`.
fn is_zone_shape(zone: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+'))
    };
    zone.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cron_jobs_are_defaulted_checked_and_shown() {
        let mut object = json!({"metadata": {"name": "nightly"}, "spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b:1"}]}}}}}});
        CronJob.default(&mut object);
        assert_eq!(object["spec"]["concurrencyPolicy"], "Allow");
        assert_eq!(object["spec"]["jobTemplate"]["spec"].get("completions"), None, "jobs get it, templates do not");
        let check = |change: &dyn Fn(&mut Value), expected: &[&str]| {
            let mut object = object.clone();
            change(&mut object["spec"]);
            let mut errors = Vec::new();
            CronJob.validate_create(&object, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(&|_| {}, &[]);
        check(
            &|spec| spec["schedule"] = json!("often"),
            &["spec.schedule: Invalid value: \"often\": expected exactly 5 fields, found 1: [often]"],
        );
        check(
            &|spec| spec["timeZone"] = json!("Local"),
            &["spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in \
               https://www.iana.org/time-zones"],
        );
        check(
            &|spec| spec["timeZone"] = json!("../etc"),
            &["spec.timeZone: Invalid value: \"../etc\": unknown time zone ../etc"],
        );
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let expected =
            json!(["nightly", "0 0 * * *", "<none>", "False", 0, "<none>", "<unknown>", "a", "b:1", "<none>"]);
        assert_eq!(Value::from(CronJob.row(&object, now)), expected);
    }
}
