//! Looking: whether what a scenario describes is seen, and waiting for it.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::Api;
use crate::error::Error;
use crate::machines::Machines;
use crate::probe::{Probe, condition_shows, event_shows, is_available, pod_shows};
use crate::target::Target;

const POLL: Duration = Duration::from_millis(300);
/// Of what was seen instead, so much is told.
const MOST_TOLD: usize = 600;

/// What was seen of a probe: itself, or something else.
pub(crate) type Seen = Result<(), String>;

/// Looks once.
pub(crate) async fn look(probe: &Probe, target: &Target, machines: &Machines) -> Seen {
    let seen = match probe {
        Probe::Command { on, run, ok, contains } => {
            let ran = machines.try_run(on, run, &[], None).map_err(|error| told(&error))?;
            (ran.ok == *ok && ran.said.contains(contains.as_str()), ran.said)
        }
        Probe::Api { answers } => {
            let found = match target.api().await {
                Ok(api) => api.answers().await,
                Err(_) => false,
            };
            (found == *answers, format!("the API server answers: {found}"))
        }
        other => {
            let api = target.api().await.map_err(|error| told(&error))?;
            look_at_objects(other, &api).await.map_err(|error| told(&error))?
        }
    };
    if seen.0 { Ok(()) } else { Err(seen.1.chars().take(MOST_TOLD).collect()) }
}

async fn look_at_objects(probe: &Probe, api: &Api) -> Result<(bool, String), Error> {
    Ok(match probe {
        Probe::NodeCondition { node, condition, status, contains } => {
            let nodes = api.list("/api/v1/nodes").await?;
            let own = nodes.into_iter().find(|own| own["metadata"]["name"] == node.as_str()).unwrap_or_default();
            (condition_shows(&own, condition, status, contains), own["status"]["conditions"].to_string())
        }
        Probe::Pod { namespace, name, contains, lacks } => {
            let pods = api.list(&format!("/api/v1/namespaces/{namespace}/pods")).await?;
            let told: Vec<String> = pods.iter().map(|pod| pod["status"].to_string()).collect();
            (pods.iter().any(|pod| pod_shows(pod, name, contains, lacks)), told.join("\n"))
        }
        Probe::Event { namespace, reason, contains } => {
            let events = api.list(&format!("/api/v1/namespaces/{namespace}/events")).await?;
            let told: Vec<String> =
                events.iter().map(|event| format!("{} {}", event["reason"], event["message"])).collect();
            (events.iter().any(|event| event_shows(event, reason, contains)), told.join("\n"))
        }
        Probe::Object { object, at, contains } => {
            let found = api.get(object).await?.unwrap_or_default();
            let field = found.pointer(at).map(ToString::to_string).unwrap_or_default();
            (!field.is_empty() && field.contains(contains.as_str()), field)
        }
        Probe::Workloads { namespace } => {
            let deployments = api.list(&format!("/apis/apps/v1/namespaces/{namespace}/deployments")).await?;
            let claims = api.list(&format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims")).await?;
            let sets = api.list(&format!("/apis/apps/v1/namespaces/{namespace}/statefulsets")).await?;
            let waiting = deployments.iter().chain(&sets).filter(|deployment| !is_available(deployment));
            let waiting = waiting.chain(claims.iter().filter(|claim| claim["status"]["phase"] != "Bound"));
            let told: Vec<String> =
                waiting.map(|object| format!("{} {}", object["metadata"]["name"], object["status"])).collect();
            (told.is_empty(), told.join("\n"))
        }
        Probe::NoObject { object } => {
            let found = api.get(object).await?;
            (found.is_none(), format!("{} {} is there", object.kind, object.name))
        }
        Probe::Command { .. } | Probe::Api { .. } => (false, String::new()),
    })
}

/// Waits until all are seen at once.
pub(crate) async fn wait(
    probes: &[Probe],
    target: &Target,
    machines: &Machines,
    patience: Duration,
) -> Result<(), Error> {
    let deadline = Instant::now() + patience;
    loop {
        let mut missing = None;
        for probe in probes {
            if let Err(instead) = look(probe, target, machines).await {
                missing = Some(format!("{}; instead: {instead}", describe(probe)));
                break;
            }
        }
        let Some(what) = missing else { return Ok(()) };
        if Instant::now() > deadline {
            return Err(Error::NotSeen { what, seconds: patience.as_secs() });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A probe in one line.
pub(crate) fn describe(probe: &Probe) -> String {
    serde_json::to_string(probe).unwrap_or_default()
}

fn told(error: &Error) -> String {
    error.to_string()
}
