//! `/version`: what clients take for the cluster's version.

use http::{Response, StatusCode};
use kedge_meta::ApiStatus;
use serde_json::json;

use crate::body::Body;
use crate::call::Call;
use crate::reply;

pub(super) fn answer(call: &Call) -> Result<Response<Body>, ApiStatus> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let document = json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": kedge_meta::full_version(),
        "gitCommit": option_env!("KEDGE_GIT_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean",
        "buildDate": option_env!("KEDGE_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "none (Kedge is written in Rust)",
        "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    });
    Ok(reply::document(StatusCode::OK, call.accepted()?.encoding, &document))
}
