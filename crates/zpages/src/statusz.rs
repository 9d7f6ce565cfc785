//! `/statusz`: since when a component runs, as which version, and where else to look.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kedge_meta::{ApiStatus, KUBERNETES_VERSION, MediaRange, format_time};
use serde_json::json;

use crate::form::{Form, object_page, text_page, wanted};
use crate::{Component, Page};

const DEPRECATED: &str = "299 - \"This version of the statusz endpoint is deprecated. Please use a newer version.\"";

/// Folders of paths that are no help in finding faults.
const OTHERS: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];

/// The page at `now`; of `paths`, what they begin with is named. The error is 406.
pub fn statusz<'a>(
    component: &Component,
    paths: impl IntoIterator<Item = &'a str>,
    now: Timestamp,
    ranges: &[MediaRange<'_>],
) -> Result<Page, ApiStatus> {
    let seconds = now.duration_since(component.started).as_secs().max(0);
    let paths = folders(paths);
    let Component { name, started, .. } = component;
    Ok(match wanted("Statusz", ranges)? {
        Form::Text => text_page(name, "statusz", &lines(*started, seconds, &paths)),
        Form::Object { is_yaml, version } => {
            let object = json!({
                "startTime": format_time(*started), "uptimeSeconds": seconds, "goVersion": "",
                "binaryVersion": KUBERNETES_VERSION, "emulationVersion": emulated(), "paths": paths,
            });
            object_page(("Statusz", name), (is_yaml, version), DEPRECATED, object)
        }
    })
}

/// `1.36`.
fn emulated() -> String {
    let version = KUBERNETES_VERSION.trim_start_matches('v');
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// What the paths begin with.
fn folders<'a>(paths: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let folders = paths.into_iter().filter_map(|path| path.split('/').nth(1)).filter(|name| !name.is_empty());
    folders.map(|name| format!("/{name}")).filter(|folder| !OTHERS.contains(&folder.as_str())).collect()
}

fn lines(started: Timestamp, seconds: i64, paths: &BTreeSet<String>) -> String {
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let started = started.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a %b %e %H:%M:%S UTC %Y");
    format!(
        "\nStarted: {started}\nUp: {} hr {:02} min {:02} sec\n\
         Binary version: {KUBERNETES_VERSION}\nEmulation version: {}\nPaths: {}\n",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        emulated(),
        paths.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_upstreams() {
        let started = "2026-01-02T03:04:05Z".parse().unwrap();
        let component = Component { name: "kube-scheduler", started, flags: Default::default() };
        let paths = ["/metrics", "/healthz", "/healthz/ping", "/apis/apps/v1", "/"];
        let now = started + jiff::SignedDuration::from_secs(3_723);
        let page = statusz(&component, paths, now, &[]).unwrap();
        for line in [
            "kube-scheduler statusz",
            "Started: Fri Jan  2 03:04:05 UTC 2026",
            "Up: 1 hr 02 min 03 sec",
            "Emulation version: 1.36",
            "Paths: /healthz /metrics",
        ] {
            assert!(page.text.lines().any(|own| own == line), "{line} is not in {}", page.text);
        }
    }
}
