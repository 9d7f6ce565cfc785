//! `/statusz`: since when this server runs, as which version, and where else to look; for people, and for programs that ask
//! for `Statusz` of `config.k8s.io`.

use std::collections::BTreeSet;

use http::{HeaderValue, Response, StatusCode};
use kedge_meta::{ApiStatus, StatusReason, format_time};
use serde_json::{Value, json};

use super::root;
use crate::body::Body;
use crate::call::Call;
use crate::core::Core;
use crate::negotiate::{self, Encoding, MediaRange};
use crate::reply;

const COMPONENT: &str = "apiserver";
const DEPRECATED: &str = "299 - \"This version of the statusz endpoint is deprecated. Please use a newer version.\"";

/// Folders of paths that are no help in finding faults.
const OTHERS: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];

/// The form of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Text,
    Object { encoding: Encoding, version: &'static str },
}

pub(super) fn answer(core: &Core, call: &Call) -> Result<Response<Body>, ApiStatus> {
    let Some(form) = form(&negotiate::accept_ranges(&call.headers)) else { return Err(not_acceptable()) };
    let seconds = core.clock.now().duration_since(core.started).as_secs().max(0);
    let paths = folders(&root(core));
    match form {
        Form::Text => Ok(reply::plain(text(core.started, seconds, &paths))),
        Form::Object { encoding, version } => {
            let document = json!({
                "kind": "Statusz", "apiVersion": format!("config.k8s.io/{version}"), "metadata": {"name": COMPONENT},
                "startTime": format_time(core.started), "uptimeSeconds": seconds, "goVersion": "",
                "binaryVersion": kedge_meta::KUBERNETES_VERSION, "emulationVersion": emulated(), "paths": paths,
            });
            let mut response = reply::document(StatusCode::OK, encoding, &document);
            if version == "v1alpha1" {
                response.headers_mut().insert("warning", HeaderValue::from_static(DEPRECATED));
            }
            Ok(response)
        }
    }
}

/// The first form that is wanted and can be had; text where nothing is wanted.
fn form(ranges: &[MediaRange<'_>]) -> Option<Form> {
    if ranges.is_empty() {
        return Some(Form::Text);
    }
    ranges.iter().find_map(|range| {
        let asked = (range.get("g"), range.get("v"), range.get("as"));
        let encoding = match (range.name.as_str(), asked) {
            ("text/plain" | "text/*" | "*/*", (None, None, None)) => return Some(Form::Text),
            ("application/json" | "application/*" | "*/*", _) => Encoding::Json { pretty: false },
            ("application/yaml", _) => Encoding::Yaml,
            _ => return None,
        };
        let version = match asked {
            (Some("config.k8s.io"), Some("v1beta1"), Some("Statusz")) => "v1beta1",
            (Some("config.k8s.io"), Some("v1alpha1"), Some("Statusz")) => "v1alpha1",
            _ => return None,
        };
        Some(Form::Object { encoding, version })
    })
}

fn not_acceptable() -> ApiStatus {
    let supported = "application/json, application/yaml, text/plain";
    ApiStatus::new(
        406,
        StatusReason::NotAcceptable,
        format!("only the following media types are accepted: {supported}"),
    )
}

/// `1.36`.
fn emulated() -> String {
    let version = kedge_meta::KUBERNETES_VERSION.trim_start_matches('v');
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// What the paths begin with.
fn folders(root: &Value) -> BTreeSet<String> {
    let paths = root["paths"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let folders = paths.filter_map(|path| path.split('/').nth(1)).filter(|name| !name.is_empty());
    folders.map(|name| format!("/{name}")).filter(|folder| !OTHERS.contains(&folder.as_str())).collect()
}

fn text(started: jiff::Timestamp, seconds: i64, paths: &BTreeSet<String>) -> String {
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let started = started.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a %b %e %H:%M:%S UTC %Y");
    format!(
        "\n{COMPONENT} statusz\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
         guarantees and is for debugging purposes only.\n\nStarted: {started}\nUp: {} hr {:02} min {:02} sec\n\
         Binary version: {}\nEmulation version: {}\nPaths: {}\n",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        kedge_meta::KUBERNETES_VERSION,
        emulated(),
        paths.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::ACCEPT;

    use super::*;

    fn check(accept: &'static str, expected: Option<Form>) {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        assert_eq!(form(&negotiate::accept_ranges(&headers)), expected, "{accept}");
    }

    #[test]
    fn people_get_text_and_programs_what_they_ask_for() {
        let object = |encoding, version| Some(Form::Object { encoding, version });
        check("", Some(Form::Text));
        check("*/*", Some(Form::Text));
        check("application/json, text/plain;q=0.5", Some(Form::Text));
        check("application/json", None);
        check("application/vnd.kubernetes.protobuf;g=config.k8s.io;v=v1beta1;as=Statusz", None);
        check(
            "application/json;g=config.k8s.io;v=v1beta1;as=Statusz",
            object(Encoding::Json { pretty: false }, "v1beta1"),
        );
        check("application/yaml;v=v1alpha1;g=config.k8s.io;as=Statusz", object(Encoding::Yaml, "v1alpha1"));
    }

    #[test]
    fn the_text_is_upstreams() {
        let paths = BTreeSet::from(["/healthz".to_owned(), "/metrics".to_owned()]);
        let text = text("2026-01-02T03:04:05Z".parse().unwrap(), 3_723, &paths);
        for line in [
            "apiserver statusz",
            "Started: Fri Jan  2 03:04:05 UTC 2026",
            "Up: 1 hr 02 min 03 sec",
            "Paths: /healthz /metrics",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is not in {text}");
        }
    }
}
