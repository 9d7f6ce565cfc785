//! What the store of this machine says when it is asked with a client's certificate: health, status, alarms, members; and
//! how long its writes take.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kedge_pki::Identity;
use rustls::ClientConfig;
use serde_json::{Map, Value, json};

use crate::node::flags::Flags;
use crate::node::https::{self, Answer};
use crate::node::reading::Reading;

const PORT: u16 = 2379;
/// What a store may hold unless it is told otherwise.
const QUOTA: f64 = 2_147_483_648.0;
/// Writes of a store that is young prove nothing.
const FEW_WRITES: f64 = 1000.0;

/// Asks the store, if this machine has one.
pub(super) async fn read(listening: &BTreeSet<SocketAddr>, flags: &Flags) -> Reading {
    let mut reading = Reading::default();
    let own = listening.iter().find(|address| address.port() == PORT).copied();
    if own.is_none() && !flags.has("etcd") {
        return reading;
    }
    let address = own.filter(|address| !address.ip().is_unspecified());
    let address = address.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    let path = format!("https://{address}");
    match client(flags) {
        Ok(tls) => {
            let content = answers(address, &Arc::new(tls)).await;
            if let Ok(content) = &content {
                size(content, flags, &address, &mut reading);
            }
            reading.document("etcd", &path, content);
        }
        Err(why) => reading.miss(format!("etcd at {path}"), why),
    }
    writes(flags, &mut reading).await;
    reading
}

async fn answers(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Value, String> {
    let ask = |path: &'static str, body: Option<&'static str>| https::ask(address, Some(tls), path, body);
    let (health, status, alarms, members) = tokio::join!(
        ask("/health", None),
        ask("/v3/maintenance/status", Some("{}")),
        ask("/v3/maintenance/alarm", Some("{\"action\":\"GET\"}")),
        ask("/v3/cluster/member/list", Some("{}")),
    );
    let mut content = Map::new();
    content.insert("health".to_owned(), body(health?));
    let mut put = |name: &str, answer: Result<Answer, String>, field: Option<&str>| match answer {
        Ok((200, text)) => {
            let answer = body((200, text));
            let value = field.map_or(answer.clone(), |field| answer[field].clone());
            content.insert(name.to_owned(), if value.is_null() { json!([]) } else { value });
        }
        Ok((_, text)) => drop(content.insert(format!("{name}Error"), Value::from(text))),
        Err(why) => drop(content.insert(format!("{name}Error"), Value::from(why))),
    };
    put("status", status, None);
    put("alarms", alarms, Some("alarms"));
    put("members", members, Some("members"));
    Ok(Value::Object(content))
}

fn body((_, text): Answer) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

/// How much it holds of what it may.
fn size(content: &Value, flags: &Flags, address: &SocketAddr, reading: &mut Reading) {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok()).or(value.as_f64());
    let status = &content["status"];
    let told = number(&status["dbSizeQuota"]).filter(|quota| *quota > 0.0);
    let flag = flags.of("etcd", "quota-backend-bytes").parse().ok().filter(|quota: &f64| *quota > 0.0);
    if let Some(size) = number(&status["dbSize"]) {
        let quota = told.or(flag).unwrap_or(QUOTA);
        reading.measure("etcdctl endpoint status", "etcd_db_bytes", &address.to_string(), size, Some(quota));
    }
}

/// How long its writes to the disk take, by its own count.
async fn writes(flags: &Flags, reading: &mut Reading) {
    let urls = flags.of("etcd", "listen-metrics-urls");
    let plain =
        urls.split(',').filter_map(|url| url.strip_prefix("http://")).find_map(|at| at.parse::<SocketAddr>().ok());
    let Some(address) = plain else { return };
    match https::ask(address, None, "/metrics", None).await {
        Ok((200, text)) => {
            if let Some(seconds) = percentile(&text, "etcd_disk_wal_fsync_duration_seconds", 0.99) {
                let origin = format!("curl http://{address}/metrics");
                reading.measure(&origin, "etcd_fsync_p99_seconds", "etcd", seconds, None);
            }
        }
        Ok((status, _)) => reading.miss("metrics of etcd", format!("status {status}")),
        Err(why) => reading.miss("metrics of etcd", why),
    }
}

/// The bound of the bucket of a histogram that holds this part of all that was counted.
fn percentile(metrics: &str, name: &str, part: f64) -> Option<f64> {
    let start = format!("{name}_bucket{{le=\"");
    let buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter_map(|line| {
            let (bound, count) = line.strip_prefix(&start)?.split_once("\"}")?;
            Some((bound.parse().unwrap_or(f64::INFINITY), count.trim().parse().ok()?))
        })
        .collect();
    let all = buckets.last()?.1;
    let bound = buckets.iter().find(|(_, count)| *count >= all * part)?.0;
    (all >= FEW_WRITES).then_some(bound.min(60.0))
}

/// A client with the certificate that the API server has for it, or the one that is meant for looking.
fn client(flags: &Flags) -> Result<ClientConfig, String> {
    let given = |flag: &str, usual: &str| match flags.of("kube-apiserver", flag) {
        path if path.is_empty() => PathBuf::from(usual),
        path => PathBuf::from(path),
    };
    let pki = "/etc/kubernetes/pki";
    let pairs = [
        (
            given("etcd-certfile", &format!("{pki}/apiserver-etcd-client.crt")),
            given("etcd-keyfile", &format!("{pki}/apiserver-etcd-client.key")),
        ),
        (format!("{pki}/etcd/healthcheck-client.crt").into(), format!("{pki}/etcd/healthcheck-client.key").into()),
    ];
    let authority = read_file(&given("etcd-cafile", &format!("{pki}/etcd/ca.crt")))?;
    let mut why = String::new();
    for (certificate, key) in pairs {
        let identity = read_file(&certificate)
            .and_then(|certificate_pem| Ok(Identity { certificate_pem, key_pem: read_file(&key)? }));
        match identity
            .and_then(|identity| kedge_pki::client_config(&identity, &authority).map_err(|error| error.to_string()))
        {
            Ok(tls) => return Ok(tls),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn read_file(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_its_percentile() {
        let metrics = |all: u32| {
            format!(
                "# HELP x\na_bucket{{le=\"0.001\"}} 900\na_bucket{{le=\"0.002\"}} 995\na_bucket{{le=\"+Inf\"}} {all}\na_count {all}\n"
            )
        };
        assert_eq!(percentile(&metrics(1000), "a", 0.99), Some(0.002));
        assert_eq!(percentile(&metrics(2000), "a", 0.99), Some(60.0));
        assert_eq!(percentile(&metrics(999), "a", 0.99), None);
        assert_eq!(percentile("", "a", 0.99), None);
    }

    #[tokio::test]
    async fn a_machine_without_a_store_is_not_asked() {
        let reading = read(&BTreeSet::new(), &Flags::default()).await;
        assert_eq!((reading.facts().count(), reading.missed().len()), (0, 0));
    }
}
