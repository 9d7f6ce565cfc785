//! Entries in kubeconfig files, merged in as kind does it: one cluster, user and context of the same name, everything
//! else left as it was.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_yaml::{Mapping, Value};

use crate::PkiError;
use crate::authority::Identity;
use crate::file::{read, rewrite, write_private};

/// What a kubeconfig says about one cluster.
#[derive(Debug, Clone)]
pub struct KubeconfigEntry {
    /// Name of the cluster, the user and the context.
    pub name: String,
    /// `https://host:port`.
    pub server: String,
    /// The authority to trust.
    pub authority_pem: String,
    /// The user's certificate.
    pub identity: Identity,
}

/// Where kubectl of this user looks: the first file of `$KUBECONFIG`, or `~/.kube/config`.
pub fn default_kubeconfig_path(kubeconfig_variable: Option<&str>, home: &Path) -> PathBuf {
    match kubeconfig_variable.and_then(|list| list.split(':').find(|path| !path.is_empty())) {
        Some(path) => PathBuf::from(path),
        None => home.join(".kube").join("config"),
    }
}

/// Puts the entry into the file and makes it the current context. A file that is not there is made.
pub fn merge_kubeconfig(path: &Path, entry: &KubeconfigEntry) -> Result<(), PkiError> {
    let mut document = load(path)?;
    let name = &entry.name;
    let cluster = mapping([
        ("certificate-authority-data", encoded(&entry.authority_pem)),
        ("server", Value::from(entry.server.clone())),
    ]);
    let user = mapping([
        ("client-certificate-data", encoded(&entry.identity.certificate_pem)),
        ("client-key-data", encoded(&entry.identity.key_pem)),
    ]);
    let context = mapping([("cluster", Value::from(name.clone())), ("user", Value::from(name.clone()))]);
    put(&mut document, "clusters", name, "cluster", cluster, path)?;
    put(&mut document, "contexts", name, "context", context, path)?;
    put(&mut document, "users", name, "user", user, path)?;
    document.insert("current-context".into(), Value::from(name.clone()));
    store(path, &document)
}

/// The URL of the API server of a file's current context.
pub fn kubeconfig_server(path: &Path) -> Result<String, PkiError> {
    let document = load(path)?;
    let server = || current(&document, "cluster")?.get("server")?.as_str().map(str::to_owned);
    let why = || "it has no current context with a server".to_owned();
    server().ok_or_else(|| PkiError::Malformed { path: path.to_owned(), why: why() })
}

/// Takes the entry out of the file again; the current context is cleared if it was this one.
pub fn remove_from_kubeconfig(path: &Path, name: &str) -> Result<(), PkiError> {
    if read(path)?.is_none() {
        return Ok(());
    }
    let mut document = load(path)?;
    for list in ["clusters", "contexts", "users"] {
        if let Some(Value::Sequence(items)) = document.get_mut(list) {
            items.retain(|item| item.get("name").and_then(Value::as_str) != Some(name));
        }
    }
    if document.get("current-context").and_then(Value::as_str) == Some(name) {
        document.insert("current-context".into(), Value::from(""));
    }
    store(path, &document)
}

/// A cluster in a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeconfigCluster {
    /// `https://host:port`.
    pub server: String,
    /// The authority to trust.
    pub authority_pem: String,
    /// The name that the server's certificate is checked for, where it is not the one in the URL.
    pub tls_server_name: Option<String>,
}

/// A user in a kubeconfig.
#[derive(Debug, Clone)]
pub enum KubeconfigUser {
    /// A certificate in the kubeconfig itself.
    Embedded(Identity),
    /// A certificate in files.
    Files {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// A token.
    Token(String),
}

impl KubeconfigCluster {
    /// The cluster of a file's current context.
    pub fn read(path: &Path) -> Result<Self, PkiError> {
        let wrong = |why: &str| PkiError::Malformed { path: path.to_owned(), why: why.to_owned() };
        let cluster = current(&load(path)?, "cluster").ok_or_else(|| wrong("it has no current context"))?;
        let text = |key: &str| cluster.get(key).and_then(Value::as_str).map(str::to_owned);
        let authority_pem = match (text("certificate-authority-data"), text("certificate-authority")) {
            (Some(data), _) => decoded(&data).ok_or_else(|| wrong("its certificate authority is not in base64"))?,
            (None, Some(file)) => {
                read(&beside(path, &file))?.ok_or_else(|| wrong("its certificate authority is gone"))?
            }
            (None, None) => return Err(wrong("it names no certificate authority")),
        };
        let server = text("server").ok_or_else(|| wrong("its cluster has no server"))?;
        Ok(Self { server, authority_pem, tls_server_name: text("tls-server-name") })
    }
}

/// The client certificate of a file's current context; `None` where it has none.
pub fn kubeconfig_certificate(path: &Path) -> Result<Option<String>, PkiError> {
    let Some(user) = current(&load(path)?, "user") else { return Ok(None) };
    let text = |key: &str| user.get(key).and_then(Value::as_str);
    match (text("client-certificate-data"), text("client-certificate")) {
        (Some(data), _) => Ok(decoded(data)),
        (None, Some(file)) => read(&beside(path, file)),
        (None, None) => Ok(None),
    }
}

/// Certificate and key of a file's current context, from wherever it has them; `None` where it has none.
pub fn kubeconfig_identity(path: &Path) -> Result<Option<Identity>, PkiError> {
    let Some(certificate_pem) = kubeconfig_certificate(path)? else { return Ok(None) };
    let Some(user) = current(&load(path)?, "user") else { return Ok(None) };
    let text = |key: &str| user.get(key).and_then(Value::as_str);
    let key_pem = match (text("client-key-data"), text("client-key")) {
        (Some(data), _) => decoded(data),
        (None, Some(file)) => read(&beside(path, file))?,
        (None, None) => None,
    };
    Ok(key_pem.map(|key_pem| Identity { certificate_pem, key_pem }))
}

/// Puts another certificate and key into the user of a file's current context; all else stays.
pub(crate) fn replace_kubeconfig_identity(path: &Path, identity: &Identity) -> Result<(), PkiError> {
    change_current(path, "user", |fields| {
        fields.remove("client-certificate");
        fields.remove("client-key");
        fields.insert("client-certificate-data".into(), encoded(&identity.certificate_pem));
        fields.insert("client-key-data".into(), encoded(&identity.key_pem));
    })
}

/// Puts other authorities into the cluster of a file's current context; all else stays.
pub fn replace_kubeconfig_authority(path: &Path, authority_pem: &str) -> Result<(), PkiError> {
    change_current(path, "cluster", |fields| {
        fields.remove("certificate-authority");
        fields.insert("certificate-authority-data".into(), encoded(authority_pem));
    })
}

/// Changes the `user` or the `cluster` of a file's current context.
fn change_current(path: &Path, what: &str, change: impl FnOnce(&mut Mapping)) -> Result<(), PkiError> {
    let wrong =
        || PkiError::Malformed { path: path.to_owned(), why: format!("it has no current context with a {what}") };
    let mut document = load(path)?;
    let context = document.get("current-context").cloned().ok_or_else(wrong)?;
    let contexts = document.get("contexts").and_then(Value::as_sequence).cloned().unwrap_or_default();
    let context = contexts.into_iter().find(|item| item.get("name") == Some(&context)).ok_or_else(wrong)?;
    let name = context.get("context").and_then(|context| context.get(what)).cloned().ok_or_else(wrong)?;
    let items = document.get_mut(format!("{what}s")).and_then(Value::as_sequence_mut).ok_or_else(wrong)?;
    let item = items.iter_mut().find(|item| item.get("name") == Some(&name)).ok_or_else(wrong)?;
    change(item.get_mut(what).and_then(Value::as_mapping_mut).ok_or_else(wrong)?);
    // A static pod mounts its kubeconfig as one file, and would not see another file in its place.
    rewrite(path, text_of(path, &document)?.as_bytes())
}

/// Writes a kubeconfig with one context, `<user>@<cluster>`, in place of whatever is there.
pub fn write_kubeconfig(
    path: &Path,
    cluster_name: &str,
    user_name: &str,
    cluster: &KubeconfigCluster,
    user: &KubeconfigUser,
) -> Result<(), PkiError> {
    write_private(path, kubeconfig_text(cluster_name, user_name, cluster, user)?.as_bytes())
}

/// The text of a kubeconfig with one context, `<user>@<cluster>`.
pub fn kubeconfig_text(
    cluster_name: &str,
    user_name: &str,
    cluster: &KubeconfigCluster,
    user: &KubeconfigUser,
) -> Result<String, PkiError> {
    let path = Path::new("the new kubeconfig");
    let mut fields = vec![
        ("certificate-authority-data", encoded(&cluster.authority_pem)),
        ("server", Value::from(cluster.server.clone())),
    ];
    fields.extend(cluster.tls_server_name.clone().map(|name| ("tls-server-name", Value::from(name))));
    let cluster = mapping_of(fields);
    let user = match user {
        KubeconfigUser::Embedded(identity) => mapping([
            ("client-certificate-data", encoded(&identity.certificate_pem)),
            ("client-key-data", encoded(&identity.key_pem)),
        ]),
        KubeconfigUser::Files { certificate, key } => mapping([
            ("client-certificate", Value::from(certificate.display().to_string())),
            ("client-key", Value::from(key.display().to_string())),
        ]),
        KubeconfigUser::Token(token) => mapping([("token", Value::from(token.clone()))]),
    };
    let context_name = format!("{user_name}@{cluster_name}");
    let context = mapping([("cluster", Value::from(cluster_name)), ("user", Value::from(user_name))]);
    let mut document = empty();
    put(&mut document, "clusters", cluster_name, "cluster", cluster, path)?;
    put(&mut document, "contexts", &context_name, "context", context, path)?;
    put(&mut document, "users", user_name, "user", user, path)?;
    document.insert("current-context".into(), Value::from(context_name));
    serde_yaml::to_string(&document)
        .map_err(|error| PkiError::Malformed { path: path.to_owned(), why: error.to_string() })
}

/// The cluster or user of the current context.
fn current(document: &Mapping, what: &str) -> Option<Value> {
    let named = |list: &str, name: &Value| {
        let items = document.get(list).and_then(Value::as_sequence);
        items.into_iter().flatten().find(|item| item.get("name") == Some(name)).cloned()
    };
    let context = named("contexts", document.get("current-context")?)?;
    named(&format!("{what}s"), context.get("context")?.get(what)?)?.get(what).cloned()
}

/// Paths in a kubeconfig are relative to it.
fn beside(path: &Path, file: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(file)
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

fn load(path: &Path) -> Result<Mapping, PkiError> {
    let malformed = |why: String| PkiError::Malformed { path: path.to_owned(), why };
    let text = read(path)?.unwrap_or_default();
    match serde_yaml::from_str(&text).map_err(|error| malformed(error.to_string()))? {
        Value::Mapping(document) => Ok(document),
        Value::Null => Ok(empty()),
        _ => Err(malformed("it is no kubeconfig: a mapping is expected".to_owned())),
    }
}

fn empty() -> Mapping {
    let mut document = Mapping::new();
    document.insert("apiVersion".into(), "v1".into());
    document.insert("kind".into(), "Config".into());
    document.insert("preferences".into(), Value::Mapping(Mapping::new()));
    document
}

fn put(document: &mut Mapping, list: &str, name: &str, field: &str, value: Value, path: &Path) -> Result<(), PkiError> {
    let entry = mapping([("name", Value::from(name)), (field, value)]);
    let items = document.entry(list.into()).or_insert(Value::Null);
    if items.is_null() {
        *items = Value::Sequence(Vec::new());
    }
    let Value::Sequence(items) = items else {
        return Err(PkiError::Malformed { path: path.to_owned(), why: format!("`{list}` is no list") });
    };
    match items.iter_mut().find(|item| item.get("name").and_then(Value::as_str) == Some(name)) {
        Some(existing) => *existing = entry,
        None => items.push(entry),
    }
    Ok(())
}

fn text_of(path: &Path, document: &Mapping) -> Result<String, PkiError> {
    serde_yaml::to_string(document)
        .map_err(|error| PkiError::Malformed { path: path.to_owned(), why: error.to_string() })
}

fn store(path: &Path, document: &Mapping) -> Result<(), PkiError> {
    let text = text_of(path, document)?;
    // A link stays a link: what it points to is replaced.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    write_private(&target, text.as_bytes())
}

fn mapping<const N: usize>(fields: [(&str, Value); N]) -> Value {
    mapping_of(fields.into())
}

fn mapping_of(fields: Vec<(&str, Value)>) -> Value {
    Value::Mapping(fields.into_iter().map(|(key, value)| (Value::from(key), value)).collect())
}

fn encoded(pem: &str) -> Value {
    Value::from(STANDARD.encode(pem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(server: &str) -> KubeconfigEntry {
        let identity = Identity { certificate_pem: "cert".to_owned(), key_pem: "key".to_owned() };
        KubeconfigEntry {
            name: "kedge".to_owned(),
            server: server.to_owned(),
            authority_pem: "ca".to_owned(),
            identity,
        }
    }

    #[test]
    fn other_entries_stay_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub").join("config");
        merge_kubeconfig(&path, &entry("https://one")).unwrap();
        let with_other = std::fs::read_to_string(&path).unwrap().replace(
            "clusters:\n",
            "extensions: kept\nclusters:\n- name: other\n  cluster:\n    server: https://other\n",
        );
        std::fs::write(&path, with_other).unwrap();
        merge_kubeconfig(&path, &entry("https://two")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for kept in ["extensions: kept", "https://other", "https://two", "current-context: kedge"] {
            assert!(text.contains(kept), "{kept} is not in\n{text}");
        }
        assert!(!text.contains("https://one"), "{text}");
        assert_eq!(kubeconfig_server(&path).unwrap(), "https://two");
        remove_from_kubeconfig(&path, "kedge").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("https://other") && !text.contains("https://two"), "{text}");
        assert!(kubeconfig_server(&path).is_err());
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, "- a list\n").unwrap();
        let error = merge_kubeconfig(&path, &entry("https://one")).unwrap_err().to_string();
        assert!(error.contains("it is no kubeconfig"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "- a list\n");
    }

    #[test]
    fn what_is_written_is_read_whatever_form_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.conf");
        let cluster = KubeconfigCluster {
            server: "https://10.0.0.1:6443".to_owned(),
            authority_pem: "authority".to_owned(),
            tls_server_name: Some("kubernetes".to_owned()),
        };
        let identity = Identity { certificate_pem: "certificate".to_owned(), key_pem: "key".to_owned() };
        std::fs::write(dir.path().join("both.pem"), "from a file").unwrap();
        let files = KubeconfigUser::Files { certificate: "both.pem".into(), key: dir.path().join("both.pem") };
        for (user, expected) in [
            (KubeconfigUser::Embedded(identity), Some(("certificate", "key"))),
            (files, Some(("from a file", "from a file"))),
            (KubeconfigUser::Token("t".to_owned()), None),
        ] {
            write_kubeconfig(&path, "kubernetes", "a", &cluster, &user).unwrap();
            assert_eq!(KubeconfigCluster::read(&path).unwrap(), cluster);
            let found = kubeconfig_identity(&path).unwrap();
            let found = found.as_ref().map(|found| (found.certificate_pem.as_str(), found.key_pem.as_str()));
            assert_eq!(found, expected);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("current-context: a@kubernetes"), "{text}");
        }
    }

    #[test]
    fn who_has_the_file_open_sees_what_is_put_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scheduler.conf");
        let cluster = KubeconfigCluster {
            server: "https://10.0.0.1:6443".to_owned(),
            authority_pem: "a long authority that becomes a short one".repeat(20),
            tls_server_name: None,
        };
        let identity = |text: &str| Identity { certificate_pem: text.to_owned(), key_pem: "key".to_owned() };
        let user = KubeconfigUser::Embedded(identity("old"));
        write_kubeconfig(&path, "kubernetes", "a", &cluster, &user).unwrap();
        let opened = std::fs::File::open(&path).unwrap();
        replace_kubeconfig_authority(&path, "short").unwrap();
        replace_kubeconfig_identity(&path, &identity("new")).unwrap();
        let text = std::io::read_to_string(opened).unwrap();
        assert_eq!(text, std::fs::read_to_string(&path).unwrap());
        assert_eq!(KubeconfigCluster::read(&path).unwrap().authority_pem, "short");
        assert_eq!(kubeconfig_certificate(&path).unwrap().as_deref(), Some("new"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_default_path_is_kubectls() {
        let home = Path::new("/home/u");
        assert_eq!(default_kubeconfig_path(None, home), Path::new("/home/u/.kube/config"));
        assert_eq!(default_kubeconfig_path(Some(":/a:/b"), home), Path::new("/a"));
    }
}
