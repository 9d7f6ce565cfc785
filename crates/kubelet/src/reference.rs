//! Image references and the credentials that fit them.
//!
//! Pure. Source: the reference grammar of distribution/reference; the rules of `kubernetes.io/dockerconfigjson` secrets.

use base64::Engine;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

/// A user name and password for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// The reference with `:latest` where it has neither tag nor digest; an error where it is none.
pub(crate) fn with_default_tag(image: &str) -> Result<String, String> {
    let invalid = |why: &str| Err(format!("couldn't parse image name {image:?}: {why}"));
    let (named, digest) = match image.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (image, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return invalid("invalid reference format");
    }
    let last_slash = named.rfind('/').map_or(0, |position| position + 1);
    let (name, tag) = match named[last_slash..].split_once(':') {
        Some((last, tag)) => (&named[..last_slash + last.len()], Some(tag)),
        None => (named, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return invalid("invalid reference format");
    }
    let (registry, path) = split_registry(name);
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return invalid(&format!("invalid reference format: repository name ({path}) must be lowercase"));
    }
    if path.is_empty() || !path.split('/').all(is_path_component) || registry.is_some_and(|host| !is_host(host)) {
        return invalid("invalid reference format");
    }
    if tag.is_none() && digest.is_none() { Ok(format!("{image}:latest")) } else { Ok(image.to_owned()) }
}

fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, name),
    }
}

fn is_tag(tag: &str) -> bool {
    let first = tag.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    first && tag.len() <= 128 && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    alphanumeric(component.bytes().next())
        && alphanumeric(component.bytes().next_back())
        && component.bytes().all(|byte| alphanumeric(Some(byte)) || b"._-".contains(&byte))
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
}

/// The credentials of image pull secrets that fit an image, the most specific first.
pub(crate) fn credentials(secrets: &[Secret], image: &str) -> Vec<Credentials> {
    let name = image.split('@').next().unwrap_or_default();
    let (registry, path) = split_registry(name);
    let wanted = match registry {
        Some(registry) => format!("{registry}/{path}"),
        None if path.contains('/') => format!("index.docker.io/{path}"),
        None => format!("index.docker.io/library/{path}"),
    };
    let mut found: Vec<(usize, Credentials)> = Vec::new();
    for secret in secrets {
        for (server, entry) in entries(secret) {
            let server = normalized(&server);
            let fits =
                wanted == server || wanted.strip_prefix(&server).is_some_and(|rest| rest.starts_with(['/', ':']));
            if let Some(credentials) = fits.then(|| read(&entry)).flatten() {
                found.push((server.len(), credentials));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, credentials)| credentials).collect()
}

fn entries(secret: &Secret) -> Vec<(String, Value)> {
    let data = secret.data.as_ref();
    let config = |key: &str| {
        data.and_then(|data| data.get(key)).and_then(|bytes| serde_json::from_slice::<Value>(&bytes.0).ok())
    };
    let auths = match config(".dockerconfigjson") {
        Some(config) => config.get("auths").cloned(),
        None => config(".dockercfg"),
    };
    auths
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(server, entry)| (server.clone(), entry.clone()))
        .collect()
}

fn normalized(server: &str) -> String {
    let server = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let server = server.trim_end_matches("/v1").trim_end_matches("/v2");
    match server {
        "docker.io" | "registry-1.docker.io" => "index.docker.io".to_owned(),
        other => other.to_owned(),
    }
}

fn read(entry: &Value) -> Option<Credentials> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let auth = text("auth");
    if !auth.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (username, password) = decoded.split_once(':')?;
        return Some(Credentials { username: username.to_owned(), password: password.to_owned() });
    }
    Some(Credentials { username: text("username"), password: text("password") })
        .filter(|found| !found.username.is_empty())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn references() {
        let digest = format!("busybox@sha256:{}", "a".repeat(64));
        for (image, expected) in [
            ("busybox", Ok("busybox:latest".to_owned())),
            ("busybox:1.36", Ok("busybox:1.36".to_owned())),
            ("localhost:5000/a/b", Ok("localhost:5000/a/b:latest".to_owned())),
            (digest.as_str(), Ok(digest.clone())),
            ("Bad", Err("couldn't parse image name \"Bad\": invalid reference format: repository name (Bad) must be lowercase".to_owned())),
            ("a b", Err("couldn't parse image name \"a b\": invalid reference format".to_owned())),
            ("", Err("couldn't parse image name \"\": invalid reference format".to_owned())),
            ("a:", Err("couldn't parse image name \"a:\": invalid reference format".to_owned())),
            ("a@sha256:12", Err("couldn't parse image name \"a@sha256:12\": invalid reference format".to_owned())),
        ] {
            assert_eq!(with_default_tag(image), expected, "{image}");
        }
    }

    #[test]
    fn the_most_specific_credentials_come_first() {
        let json = r#"{"auths":{"https://reg.test/v2/":{"username":"u","password":"p"},
            "reg.test/team":{"auth":"YTpi"},"docker.io":{"username":"d","password":"e"}}}"#;
        let data = [(".dockerconfigjson".to_owned(), ByteString(json.into()))].into();
        let secrets = [Secret { data: Some(data), ..Secret::default() }];
        let names =
            |image: &str| credentials(&secrets, image).into_iter().map(|found| found.username).collect::<Vec<_>>();
        assert_eq!(names("reg.test/team/app:1"), ["a", "u"]);
        assert_eq!(names("reg.test/other/app:1"), ["u"]);
        assert_eq!(names("nginx"), ["d"]);
        assert!(names("reg.testing/app").is_empty());
    }
}
