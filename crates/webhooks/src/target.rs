//! Where a webhook is: a URL, or a port and path of a Service, and whose certificates it may show.

use base64::Engine;
use http::Uri;
use serde_json::Value;

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl Service {
    /// The name that its certificate is for.
    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// Where a webhook is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Without query.
    pub(crate) url: String,
    pub(crate) service: Option<Service>,
    /// PEM; empty where the system's authorities count.
    pub(crate) authorities: Vec<u8>,
}

impl Target {
    /// Out of a `clientConfig`; a text where that names no place.
    pub fn read(config: &Value) -> Result<Self, String> {
        let bundle = config["caBundle"].as_str().unwrap_or_default();
        let bundle = base64::engine::general_purpose::STANDARD.decode(bundle);
        let bundle = bundle.map_err(|error| format!("the caBundle is not base64: {error}"))?;
        let authorities = if bundle.trim_ascii().is_empty() { Vec::new() } else { bundle };
        if let Some(service) = config.get("service").filter(|service| service.is_object()) {
            let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
            let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
            let found = Service { namespace: text("namespace"), name: text("name"), port };
            let path = text("path");
            let url = format!("https://{}:{port}/{}", found.host(), path.trim_start_matches('/'));
            return Ok(Self { url, service: Some(found), authorities });
        }
        let url = config["url"].as_str().unwrap_or_default();
        if url.is_empty() {
            return Err("webhook configuration must have either service or URL".to_owned());
        }
        let parsed: Uri = url.parse().map_err(|error| format!("Unparsable URL: {error}"))?;
        if parsed.host().is_none() || parsed.scheme_str() != Some("https") {
            return Err(format!("Unparsable URL: {url}"));
        }
        Ok(Self { url: url.to_owned(), service: None, authorities })
    }

    /// What connections to it have in common.
    pub(crate) fn place(&self) -> (Option<Service>, String, Vec<u8>) {
        let url: Uri = self.url.parse().unwrap_or_default();
        let authority = url.authority().map(ToString::to_string).unwrap_or_default();
        (self.service.clone(), authority, self.authorities.clone())
    }

    /// The host and port under which it is known.
    pub(crate) fn host_and_port(&self) -> (String, u16) {
        let url: Uri = self.url.parse().unwrap_or_default();
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        (host, url.port_u16().unwrap_or(443))
    }

    /// Whether HTTP/2 may be spoken: several calls over one connection would all go to one endpoint of a Service.
    pub(crate) fn takes_http2(&self) -> bool {
        let (host, _) = self.host_and_port();
        let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.service.is_none() && (is_loopback || host.eq_ignore_ascii_case("localhost"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_read() {
        let check = |config: Value, expected: Result<(&str, bool), &str>| {
            let found = Target::read(&config);
            let found = found.as_ref().map(|target| (target.url.as_str(), target.takes_http2()));
            assert_eq!(found.map_err(String::as_str), expected, "{config}");
        };
        check(json!({"url": "https://127.0.0.1:8443/x"}), Ok(("https://127.0.0.1:8443/x", true)));
        check(json!({"url": "https://example.org/x"}), Ok(("https://example.org/x", false)));
        check(
            json!({"service": {"name": "a", "namespace": "b", "path": "/x/y", "port": 8443}}),
            Ok(("https://a.b.svc:8443/x/y", false)),
        );
        check(json!({"service": {"name": "a", "namespace": "b"}}), Ok(("https://a.b.svc:443/", false)));
        check(json!({}), Err("webhook configuration must have either service or URL"));
        check(json!({"url": "http://a/"}), Err("Unparsable URL: http://a/"));
    }
}
