//! The deprecated APIs that somebody has asked an API server for, by its own count of them.
//!
//! Each API server knows those that it was asked for since it started; the one that answers is asked. Reads only.

use kedge_client::Client;

use super::plan::DeprecatedApi;
use crate::init::PhaseError;

const METRIC: &str = "apiserver_requested_deprecated_apis{";

/// What the API server that answers was asked for.
pub(super) async fn find_deprecated(client: &Client) -> Result<Vec<DeprecatedApi>, PhaseError> {
    let request = http::Request::get("/metrics").body(Vec::new());
    let request = request.map_err(|error| PhaseError::Missing(error.to_string()))?;
    let answer = client.request_text(request).await;
    let text =
        answer.map_err(|error| PhaseError::Missing(format!("the API server's metrics can't be read: {error}")))?;
    Ok(read_deprecated(&text))
}

/// Reads the gauge's series.
fn read_deprecated(text: &str) -> Vec<DeprecatedApi> {
    let series = text.lines().filter_map(|line| line.strip_prefix(METRIC)?.split_once("} "));
    let mut found: Vec<DeprecatedApi> = series
        .filter(|(_, value)| value.trim().parse::<f64>().is_ok_and(|value| value > 0.0))
        .map(|(labels, _)| {
            let label = |name: &str| {
                let value = labels.split("\",").find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
                value.unwrap_or_default().trim_end_matches('"').to_owned()
            };
            DeprecatedApi {
                group: label("group"),
                version: label("version"),
                resource: label("resource"),
                removed_release: label("removed_release"),
            }
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_once_for_all_subresources() {
        let text = "# TYPE apiserver_requested_deprecated_apis gauge
apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1
apiserver_requested_deprecated_apis{group=\"resource.k8s.io\",removed_release=\"1.39\",resource=\"resourceclaims\",subresource=\"\",version=\"v1beta2\"} 1
apiserver_requested_deprecated_apis{group=\"resource.k8s.io\",removed_release=\"1.39\",resource=\"resourceclaims\",subresource=\"status\",version=\"v1beta2\"} 1
apiserver_requested_deprecated_apis{group=\"a\",removed_release=\"\",resource=\"b\",subresource=\"\",version=\"v1\"} 0
apiserver_request_total{code=\"200\"} 7
";
        let shown: Vec<String> = read_deprecated(text).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["v1 endpoints", "resource.k8s.io/v1beta2 resourceclaims (not served from v1.39 on)"]);
    }
}
