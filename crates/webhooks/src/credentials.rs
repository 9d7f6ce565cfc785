//! How the API server shows webhooks who it is: users of a kubeconfig, named by the hosts that they are for.
//!
//! Files that it names are read for each call, so that renewed tokens and certificates count at once. Invariant: a host gets
//! the credentials of the nearest name that covers it, and never those of another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::target::Target;
use crate::tls::Identity;

/// For whom no other name is.
const EVERYBODY: &str = "*";

/// Credentials for webhooks, by host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    by_name: BTreeMap<String, User>,
    /// The user of the current context.
    otherwise: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    /// kubectl writes `null` where there is none, here and for contexts.
    users: Option<Vec<NamedUser>>,
    contexts: Option<Vec<NamedContext>>,
    #[serde(default)]
    current_context: String,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    #[serde(default)]
    user: String,
}

#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default)]
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    username: Option<String>,
    #[serde(default)]
    password: String,
    exec: Option<Value>,
    auth_provider: Option<Value>,
    #[serde(rename = "as")]
    impersonated: Option<String>,
    as_uid: Option<String>,
    #[serde(default)]
    as_groups: Vec<String>,
    #[serde(default)]
    as_user_extra: BTreeMap<String, Vec<String>>,
}

/// Whoever prints one does not print its secrets.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").finish_non_exhaustive()
    }
}

/// What is shown to one webhook now.
#[derive(Clone, Default)]
pub(crate) struct Shown {
    pub(crate) identity: Option<Identity>,
    pub(crate) headers: HeaderMap,
}

impl Credentials {
    /// Out of a kubeconfig; paths in it are relative to `folder`.
    pub fn read(text: &str, folder: &Path) -> Result<Self, String> {
        let document: Document = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let mut by_name = BTreeMap::new();
        for NamedUser { name, mut user } in document.users.unwrap_or_default() {
            user.check().map_err(|why| format!("user \"{name}\": {why}"))?;
            user.resolve(folder);
            by_name.entry(name).or_insert(user);
        }
        let mut contexts = document.contexts.into_iter().flatten();
        let current = contexts.find(|context| context.name == document.current_context);
        let otherwise = current.map(|current| current.context.user).filter(|user| by_name.contains_key(user));
        Ok(Self { by_name, otherwise })
    }

    /// What is shown to a webhook; a text where a file cannot be read.
    pub(crate) fn shown_to(&self, target: &Target) -> Result<Shown, String> {
        self.user_for(&target.host_and_port()).map_or_else(|| Ok(Shown::default()), User::shown)
    }

    fn user_for(&self, (host, port): &(String, u16)) -> Option<&User> {
        let with_port = self.covering(&format!("{host}:{port}"));
        let found = with_port.or_else(|| self.covering(host).filter(|_| *port == 443));
        found.or_else(|| self.by_name.get(EVERYBODY)).or_else(|| self.by_name.get(self.otherwise.as_ref()?))
    }

    /// Of the name itself, or of the longest part after a dot that has a star before it.
    fn covering(&self, name: &str) -> Option<&User> {
        let parts = name.match_indices('.').map(|(at, _)| &name[at..]);
        self.by_name.get(name).or_else(|| parts.into_iter().find_map(|part| self.by_name.get(&format!("*{part}"))))
    }
}

impl User {
    fn check(&self) -> Result<(), String> {
        if self.exec.is_some() {
            return Err("programs that give credentials (exec) are not run for webhooks".to_owned());
        }
        if self.auth_provider.is_some() {
            return Err("auth provider not supported".to_owned());
        }
        let has_certificate = self.client_certificate.is_some() || self.client_certificate_data.is_some();
        let has_key = self.client_key.is_some() || self.client_key_data.is_some();
        if has_certificate != has_key {
            return Err("a client certificate and its key go together".to_owned());
        }
        self.headers(&self.token).map(drop)
    }

    fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.token_file, &mut self.client_certificate, &mut self.client_key].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }

    fn shown(&self) -> Result<Shown, String> {
        let token = match (&self.token_file, self.token.is_empty()) {
            (Some(path), true) => String::from_utf8_lossy(&file(path)?).trim().to_owned(),
            _ => self.token.clone(),
        };
        let certificate = material(self.client_certificate_data.as_deref(), self.client_certificate.as_deref())?;
        let key = material(self.client_key_data.as_deref(), self.client_key.as_deref())?;
        Ok(Shown { identity: certificate.zip(key), headers: self.headers(&token)? })
    }

    fn headers(&self, token: &str) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        let mut add = |name: HeaderName, value: &str| {
            let mut value = HeaderValue::from_str(value).map_err(|_| format!("what {name} is to say is no text"))?;
            value.set_sensitive(name == AUTHORIZATION);
            headers.append(name, value);
            Ok::<_, String>(())
        };
        match &self.username {
            _ if !token.is_empty() => add(AUTHORIZATION, &format!("Bearer {token}"))?,
            Some(name) => {
                add(AUTHORIZATION, &format!("Basic {}", STANDARD.encode(format!("{name}:{}", self.password))))?;
            }
            None => {}
        }
        let Some(impersonated) = &self.impersonated else { return Ok(headers) };
        add(HeaderName::from_static("impersonate-user"), impersonated)?;
        if let Some(uid) = &self.as_uid {
            add(HeaderName::from_static("impersonate-uid"), uid)?;
        }
        for group in &self.as_groups {
            add(HeaderName::from_static("impersonate-group"), group)?;
        }
        for (key, values) in &self.as_user_extra {
            let name = HeaderName::try_from(format!("impersonate-extra-{key}"));
            let name = name.map_err(|_| format!("as-user-extra \"{key}\" is no name of a header"))?;
            values.iter().try_for_each(|value| add(name.clone(), value))?;
        }
        Ok(headers)
    }
}

/// What is given in place counts before what lies in a file.
fn material(data: Option<&str>, path: Option<&Path>) -> Result<Option<Vec<u8>>, String> {
    match (data, path) {
        (Some(data), _) => {
            STANDARD.decode(data).map(Some).map_err(|error| format!("client data is not base64: {error}"))
        }
        (None, Some(path)) => file(path).map(Some),
        (None, None) => Ok(None),
    }
}

fn file(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Credentials, String> {
        Credentials::read(text, Path::new("/nowhere"))
    }

    /// What is said to a host, if anything.
    fn said(credentials: &Credentials, url: &str) -> Option<String> {
        let target = Target::read(&json!({"url": url})).unwrap();
        let shown = credentials.shown_to(&target).unwrap();
        shown.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned())
    }

    fn users(users: &[(&str, &str)]) -> String {
        let users: Vec<_> = users.iter().map(|(name, token)| json!({"name": name, "user": {"token": token}})).collect();
        json!({"apiVersion": "v1", "kind": "Config", "users": users, "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "x", "user": "mine"}}]})
        .to_string()
    }

    #[test]
    fn the_nearest_name_counts() {
        let all = [
            ("a.example.org", "exact"),
            ("a.example.org:8443", "port"),
            ("*.example.org", "near"),
            ("*.org", "far"),
            ("*.svc", "services"),
            ("*", "everybody"),
        ];
        let credentials = read(&users(&all)).unwrap();
        for (url, token) in [
            ("https://a.example.org/x", "exact"),
            ("https://a.example.org:443/x", "exact"),
            ("https://a.example.org:8443/x", "port"),
            ("https://b.example.org/x", "near"),
            ("https://b.c.example.org/x", "near"),
            ("https://example.org/x", "far"),
            ("https://b.example.org:8443/x", "everybody"),
            ("https://127.0.0.1/x", "everybody"),
        ] {
            assert_eq!(said(&credentials, url), Some(format!("Bearer {token}")), "{url}");
        }
        let service = Target::read(&json!({"service": {"name": "hook", "namespace": "ns"}})).unwrap();
        assert_eq!(credentials.shown_to(&service).unwrap().headers[AUTHORIZATION], "Bearer services");
    }

    #[test]
    fn nobody_else_gets_anything_but_by_the_current_context() {
        let credentials = read(&users(&[("a", "one")])).unwrap();
        assert_eq!(said(&credentials, "https://b/x"), None);
        let credentials = read(&users(&[("a", "one"), ("mine", "two")])).unwrap();
        assert_eq!(said(&credentials, "https://b/x").as_deref(), Some("Bearer two"));
        assert_eq!(said(&Credentials::default(), "https://b/x"), None);
        let by_kubectl = "{clusters: null, contexts: null, current-context: '', users: [{name: b, user: {token: t}}]}";
        assert_eq!(said(&read(by_kubectl).unwrap(), "https://b/x").as_deref(), Some("Bearer t"));
        assert_eq!(read("{contexts: null, users: null}"), Ok(Credentials::default()));
    }

    #[test]
    fn every_form_is_shown() {
        let user = |user: Value| read(&json!({"users": [{"name": "*", "user": user}]}).to_string());
        let basic = user(json!({"username": "me", "password": "secret"})).unwrap();
        assert_eq!(said(&basic, "https://b/x").as_deref(), Some("Basic bWU6c2VjcmV0"));
        assert!(!format!("{basic:?}").contains("secret"));
        let other = json!({"token": "t", "as": "jane", "as-groups": ["a", "b"], "as-user-extra": {"scopes": ["s"]}});
        let target = Target::read(&json!({"url": "https://b/x"})).unwrap();
        let headers = user(other).unwrap().shown_to(&target).unwrap().headers;
        assert_eq!(
            (&headers["impersonate-user"], &headers["impersonate-extra-scopes"]),
            (&"jane".parse().unwrap(), &"s".parse().unwrap())
        );
        assert_eq!(headers.get_all("impersonate-group").iter().count(), 2);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "one\n").unwrap();
        let text = json!({"users": [{"name": "*", "user": {"tokenFile": "token"}}]}).to_string();
        let credentials = Credentials::read(&text, folder.path()).unwrap();
        assert_eq!(said(&credentials, "https://b/x").as_deref(), Some("Bearer one"));
        std::fs::write(folder.path().join("token"), "two\n").unwrap();
        assert_eq!(said(&credentials, "https://b/x").as_deref(), Some("Bearer two"), "it is read anew");
        std::fs::remove_file(folder.path().join("token")).unwrap();
        assert!(credentials.shown_to(&target).is_err_and(|why| why.starts_with("cannot read ")));
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        let check = |user: Value, why: &str| {
            let text = json!({"users": [{"name": "a", "user": user}]}).to_string();
            assert_eq!(read(&text).unwrap_err(), format!("user \"a\": {why}"));
        };
        check(json!({"exec": {"command": "x"}}), "programs that give credentials (exec) are not run for webhooks");
        check(json!({"auth-provider": {"name": "gcp"}}), "auth provider not supported");
        check(json!({"client-certificate": "x"}), "a client certificate and its key go together");
        check(json!({"token": "a\nb"}), "what authorization is to say is no text");
        assert!(read("users: 7").is_err());
    }
}
