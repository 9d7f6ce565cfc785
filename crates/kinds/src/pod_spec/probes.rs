//! Validation of probes and life-cycle hooks: exactly one handler each, and numbers in range.

use kedge_meta::FieldError;
use serde_json::Value;

use crate::formats;
use crate::path::Path;
use crate::value::{at, int, is_set, items, text};

/// Sorted, as the error lists them.
const LINUX_SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// The three probes and the hooks of a container that stays.
pub(super) fn probes_and_hooks(
    container: &Value,
    grace: Option<i64>,
    os: Option<&str>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    for hook in ["postStart", "preStop"] {
        if let Some(action) = at(container, &["lifecycle", hook]) {
            let lifecycle = path.child("lifecycle");
            handler(action, grace, &lifecycle.child(hook), errors);
        }
    }
    if let Some(signal) = at(container, &["lifecycle", "stopSignal"]).and_then(Value::as_str) {
        stop_signal(signal, os, &path.child("lifecycle").child("stopSignal"), errors);
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = at(container, &[name]) {
            probe(found, name, grace, &path.child(name), errors);
        }
    }
}

/// A signal is one of those of the system that the pod says it is for.
fn stop_signal(signal: &str, os: Option<&str>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match os {
        None => path.forbidden(errors, "may not be set for containers with empty `spec.os.name`"),
        Some("windows") => path.one_of(errors, signal, &["SIGKILL", "SIGTERM"]),
        Some("linux") => path.one_of(errors, signal, LINUX_SIGNALS),
        // Whatever else is named is wrong by itself.
        Some(_) => {}
    }
}

/// The probes and hooks that an init container without `restartPolicy: Always` may not have.
pub(super) fn forbidden_in_init(container: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if at(container, &[name]).is_some() {
            path.child(name).forbidden(errors, "may not be set for init containers without restartPolicy=Always");
        }
    }
}

fn probe(probe: &Value, name: &str, grace: Option<i64>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    handler(probe, grace, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        path.child(field).not_negative(errors, int(probe, &[field]).unwrap_or(0));
    }
    let own_grace = int(probe, &["terminationGracePeriodSeconds"]);
    if let Some(seconds) = own_grace.filter(|seconds| *seconds <= 0) {
        path.child("terminationGracePeriodSeconds").invalid(errors, seconds, "must be greater than 0");
    }
    let successes = int(probe, &["successThreshold"]).unwrap_or(0);
    if name != "readinessProbe" && successes != 1 {
        path.child("successThreshold").invalid(errors, successes, "must be 1");
    }
    if let (Some(seconds), "readinessProbe") = (own_grace, name) {
        let why = "must not be set for readinessProbes";
        path.child("terminationGracePeriodSeconds").invalid(errors, seconds, why);
    }
}

fn handler(holder: &Value, grace: Option<i64>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut handlers = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = at(holder, &[kind]) else { continue };
        handlers += 1;
        match handlers {
            1 => one_handler(kind, action, grace, &path.child(kind), errors),
            _ => path.child(kind).forbidden(errors, "may not specify more than 1 handler type"),
        }
    }
    if handlers == 0 {
        path.required(errors, "must specify a handler type");
    }
}

fn one_handler(kind: &str, action: &Value, grace: Option<i64>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match kind {
        "exec" if !is_set(action, &["command"]) => path.child("command").required(errors, ""),
        "httpGet" => http_get(action, path, errors),
        "tcpSocket" | "grpc" => port(at(action, &["port"]), &path.child("port"), errors),
        "sleep" => {
            let seconds = int(action, &["seconds"]).unwrap_or(0);
            if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                path.invalid(errors, seconds, &why);
            }
        }
        _ => {}
    }
}

fn http_get(action: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if text(action, &["path"]).is_empty() {
        path.child("path").required(errors, "");
    }
    port(at(action, &["port"]), &path.child("port"), errors);
    path.child("scheme").one_of(errors, text(action, &["scheme"]), &["HTTP", "HTTPS"]);
    for header in items(action, &["httpHeaders"]) {
        let name = text(header, &["name"]);
        path.child("httpHeaders").check(errors, name, formats::header_name(name));
    }
}

/// A port by number or name.
fn port(port: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match port {
        Some(Value::String(name)) => path.check(errors, name, formats::port_name(name)),
        other => {
            let number = other.and_then(Value::as_i64).unwrap_or(0);
            path.check_number(errors, number, formats::port_number(number));
        }
    }
}
