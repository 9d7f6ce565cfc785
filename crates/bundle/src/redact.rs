//! Taking out what nobody else may know: tokens, keys, passwords, wherever they stand.
//!
//! Pure. Invariant: what is taken out is replaced by a word that says so, and a second pass changes nothing.

use std::sync::LazyLock;

use kedge_diagnosis::{Evidence, Fact, Item};
use regex::{Captures, Regex};
use serde_json::Value;

const REDACTED: &str = "<redacted>";
/// Annotations that repeat the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What gives a secret away in a text: what stands before it (kept), and it.
static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
    let parts = [
        // JSON web tokens.
        r"(?P<jwt>eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)",
        // Bootstrap tokens: the id is public, the secret is not.
        r"(?P<id>\b[a-z0-9]{6}\.)(?P<bootstrap>[a-z0-9]{16})\b",
        r"(?P<key>-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\z))",
        r"(?P<scheme>(?i:bearer|basic)\s+)(?P<bearer>[A-Za-z0-9._~+/=-]{8,})",
        r"(?P<url>[a-z][a-z0-9+.-]*://[^\s/:@]+:)(?P<userinfo>[^\s/@]+)@",
        r#"(?P<name>(?i:[a-z0-9_.-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|certificate-key|client-key-data|token-data))["']?\s*[:=]\s*["']?)(?P<value>[^\s"',;&<]{4,})"#,
        r"(?P<flag>--(?:token|certificate-key|password)\s+)(?P<argument>[^\s]{4,})",
    ];
    Regex::new(&parts.join("|")).expect("the parts make an expression")
});

/// The evidence without secrets.
pub fn redact(mut evidence: Evidence) -> Evidence {
    let is_secret = |item: &Item| matches!(&item.fact, Fact::Object(object) if object["kind"] == "Secret");
    let mut items: Vec<Item> = evidence.items.into_iter().filter(|item| !is_secret(item)).collect();
    for item in &mut items {
        item.origin = redact_text(&item.origin);
        match &mut item.fact {
            Fact::Object(object) => redact_object(object),
            Fact::Manifest(manifest) => match &mut manifest.pod {
                Ok(pod) => redact_object(pod),
                Err(why) => *why = redact_text(why),
            },
            Fact::Log(line) => line.text = redact_text(&line.text),
            Fact::Process(process) => process.command = redact_arguments(&process.command),
            Fact::Document { content: Ok(content), .. } => redact_value(content),
            Fact::Document { content: Err(why), .. } => *why = redact_text(why),
            Fact::Call { error: Some(error), .. } => *error = redact_text(error),
            _ => {}
        }
    }
    evidence.items = items.into();
    for unseen in &mut evidence.unseen {
        unseen.why = redact_text(&unseen.why);
    }
    evidence
}

fn redact_object(object: &mut Value) {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    redact_value(object);
}

fn redact_value(value: &mut Value) {
    match value {
        Value::String(text) if SECRETS.is_match(text) => *text = redact_text(text),
        Value::Array(items) => items.iter_mut().for_each(redact_value),
        Value::Object(fields) => {
            // An environment variable says in its name what its value is.
            let is_secret_variable = fields.get("name").and_then(Value::as_str).is_some_and(is_secret_name);
            for (name, field) in fields.iter_mut() {
                let is_secret = is_secret_name(name) || (is_secret_variable && name == "value");
                match field {
                    Value::String(text) if is_secret && !text.is_empty() => REDACTED.clone_into(text),
                    other => redact_value(other),
                }
            }
        }
        _ => {}
    }
}

/// Names of fields and variables whose text is a secret; those that only refer to one (`secretName`) are not.
fn is_secret_name(name: &str) -> bool {
    const ENDS: [&str; 8] =
        ["password", "passwd", "_token", "api_key", "access_key", "private_key", "client-key-data", "_secret"];
    let name = name.to_lowercase();
    name == "token" || ENDS.iter().any(|end| name.ends_with(end))
}

/// Words of a command line without secrets.
pub fn redact_arguments(arguments: &[String]) -> Vec<String> {
    let mut redacted: Vec<String> = arguments.iter().map(|argument| redact_text(argument)).collect();
    for at in 1..redacted.len() {
        if matches!(arguments[at - 1].as_str(), "--token" | "--certificate-key" | "--password") {
            REDACTED.clone_into(&mut redacted[at]);
        }
    }
    redacted
}

/// A text without secrets.
pub fn redact_text(text: &str) -> String {
    const KEPT: [&str; 5] = ["id", "scheme", "url", "name", "flag"];
    let replaced = SECRETS.replace_all(text, |found: &Captures<'_>| {
        let kept = KEPT.iter().find_map(|name| found.name(name)).map_or("", |kept| kept.as_str());
        let end = if found.name("url").is_some() { "@" } else { "" };
        format!("{kept}{REDACTED}{end}")
    });
    replaced.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_diagnosis::{LogFact, LogSource, Place};
    use serde_json::json;

    #[test]
    fn secrets_in_texts_are_taken_out() {
        let check = |text: &str, wanted: &str| {
            assert_eq!(redact_text(text), wanted);
            assert_eq!(redact_text(wanted), wanted, "a second time");
        };
        check("kubeadm join --token 3qz1dn.ci5py76kh2jkuxad \\", "kubeadm join --token <redacted> \\");
        check("Using token: abcdef.0123456789abcdef", "Using token: <redacted>");
        check("token id abcdef.0123456789abcdef is", "token id abcdef.<redacted> is");
        check("Authorization: Bearer abcdefgh.ijkl-1", "Authorization: Bearer <redacted>");
        check("postgres://web:hunter2@db:5432/x", "postgres://web:<redacted>@db:5432/x");
        check("DB_PASSWORD=hunter2 LEVEL=debug", "DB_PASSWORD=<redacted> LEVEL=debug");
        check("\"password\": \"hunter2\", \"x\": 1", "\"password\": \"<redacted>\", \"x\": 1");
        check("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nx", "<redacted>\nx");
        check("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.abcdefgh x", "<redacted> x");
    }

    #[test]
    fn what_is_no_secret_stays() {
        let lines = [
            "Secret \"kubeadm-certs\" was not found in the \"kube-system\" Namespace",
            "token id \"abcdef\" is invalid for this cluster or it has expired",
            "sha256:b43b7bfb924b8b08d915a4db98a286be911c6bd46849c0d2022f58ec5b834d34",
            "dial tcp 10.0.0.1:6443: connect: connection refused",
        ];
        for line in lines {
            assert_eq!(redact_text(line), line);
        }
    }

    #[test]
    fn objects_keep_their_shape() {
        let pod = json!({
            "kind": "Pod", "metadata": {"name": "a", "annotations": {LAST_APPLIED: "{}", "b": "c"}},
            "spec": {"containers": [{"env": [{"name": "DB_PASSWORD", "value": "x"}, {"name": "LEVEL", "value": "debug"}]}],
                "volumes": [{"secret": {"secretName": "certificate"}}]},
        });
        let secret = json!({"kind": "Secret", "metadata": {"name": "s"}});
        let item = |fact| Item { time: None, place: Place::Cluster, origin: "x".to_owned(), fact };
        let line = LogFact { source: LogSource::Kernel, text: "password=hunter2".to_owned() };
        let items = vec![item(Fact::Object(pod)), item(Fact::Object(secret)), item(Fact::Log(line))];
        let evidence = redact(Evidence { items: items.into(), ..Evidence::default() });
        assert_eq!(evidence.items.len(), 2);
        let Fact::Object(pod) = &evidence.items[0].fact else { panic!("it is a pod") };
        let environment = &pod["spec"]["containers"][0]["env"];
        assert_eq!((&environment[0]["value"], &environment[1]["value"]), (&json!(REDACTED), &json!("debug")));
        assert_eq!(pod["metadata"]["annotations"], json!({"b": "c"}));
        assert_eq!(pod["spec"]["volumes"][0]["secret"]["secretName"], "certificate");
        assert_eq!(evidence.items[1].fact.to_string(), "password=<redacted>");
    }
}
