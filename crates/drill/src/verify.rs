//! A drill without a person: break, let the doctor say the cause, repair as documented, bring back, and hold what was
//! seen against what must not happen to anybody else.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::engine::Drill;
use crate::error::Error;
use crate::finding::{Named, diagnose, fix, rank};
use crate::machines::run_here;
use crate::observe;
use crate::scenario::Scenario;
use crate::target::Target;
use crate::witness::Witness;

const DIAGNOSE_PATIENCE: Duration = Duration::from_secs(100);
const REPAIR_PATIENCE: Duration = Duration::from_secs(120);
const CALM_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);

/// What a drill showed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The scenario.
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// The true cause; of scenarios that are done at once, all of them with `+` between.
    pub cause: String,
    /// Seconds until the symptoms were seen.
    pub symptoms_after: f64,
    /// Seconds from then until the doctor named the true cause first, one look included.
    pub diagnosed_after: f64,
    /// How long one look of the doctor took, in seconds.
    pub look_took: f64,
    /// The place of the true cause in what the doctor said; absent where it is not in it.
    pub rank: Option<usize>,
    /// What the doctor named, best first.
    pub named: Vec<String>,
    /// Of these, failures that are no true cause.
    #[serde(default)]
    pub strangers: Vec<String>,
    /// Whether the doctor mended it by itself, with `--fix`.
    #[serde(default)]
    pub fixed: bool,
    /// Seconds from the first command of the repair until all was well.
    pub repaired_after: f64,
    /// Pods that the drill must not have touched, and that were restarted or are gone.
    pub bystanders: Vec<String>,
    /// What the API server acknowledged before, during and after, and does not have any more.
    #[serde(default)]
    pub lost: Vec<String>,
    /// Failures that the doctor still names once all is back, and did not name before.
    #[serde(default)]
    pub remaining: Vec<String>,
}

impl Drill {
    /// Does a drill from start to end, and takes it back whatever comes of it.
    pub async fn verify(&self, scenario: &Scenario, target: &Target) -> Result<Verified, Error> {
        let mut witness = Witness::begin(target).await?;
        let done = self.break_and_repair(scenario, target, &mut witness).await;
        let run = self.active()?;
        if run.is_some() {
            let stopped = self.stop().await;
            // What went wrong first is what counts.
            if done.is_ok() {
                stopped?;
            }
        }
        let lost = witness.end(target).await;
        let mut done = done?;
        done.lost = lost?;
        if let Some(run) = run {
            done.remaining = remaining(&run.scenario, target, &run.before).await?;
        }
        Ok(done)
    }

    async fn break_and_repair(
        &self,
        scenario: &Scenario,
        target: &Target,
        witness: &mut Witness,
    ) -> Result<Verified, Error> {
        let before = pods(target).await?;
        witness.write(target, "before").await;
        let started = self.start(scenario, target).await?;
        let run = self.needed()?;
        witness.write(target, "broken").await;
        let begun = Instant::now();
        let answer = self.ask(&run.scenario, target, &run.before).await?;
        let diagnosed_after = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        repair(&run.scenario, target)?;
        let machines = target.machines();
        observe::wait(&run.scenario.repaired, target, &machines, REPAIR_PATIENCE).await?;
        self.check(Some(&run.scenario.cause)).await?;
        let repaired_after = begun.elapsed().as_secs_f64();
        witness.write(target, "repaired").await;
        let after = pods(target).await?;
        Ok(Verified {
            scenario: run.scenario.id.clone(),
            title: run.scenario.title.clone(),
            cause: run.scenario.causes().join("+"),
            symptoms_after: started.symptoms_after,
            diagnosed_after,
            look_took: answer.took,
            rank: answer.rank,
            strangers: answer.strangers(&run.scenario.causes()),
            named: answer.fresh.into_iter().map(|named| named.key).collect(),
            fixed: run.scenario.fix,
            repaired_after,
            bystanders: bystanders(&before, &after, &run.scenario.touches),
            lost: Vec::new(),
            remaining: Vec::new(),
        })
    }

    /// Asks the doctor until the true cause comes first: some causes need time to show in what it sees.
    async fn ask(&self, scenario: &Scenario, target: &Target, before: &[String]) -> Result<Answer, Error> {
        let deadline = Instant::now() + DIAGNOSE_PATIENCE.min(Duration::from_secs(scenario.within.max(10)));
        loop {
            let answer = look_everywhere(scenario, target, before)?;
            let is_all = answer.rank == Some(1)
                && (scenario.others.is_empty() || answer.strangers(&scenario.causes()).is_empty());
            if is_all || Instant::now() > deadline {
                return Ok(answer);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// What the doctor says from everywhere that a scenario names.
struct Answer {
    /// The worst place of a true cause, of all looks.
    rank: Option<usize>,
    /// What was not named before, best first.
    fresh: Vec<Named>,
    /// Seconds that the longest look took.
    took: f64,
}

impl Answer {
    /// Failures that are no true cause.
    fn strangers(&self, causes: &[&str]) -> Vec<String> {
        let strange = |named: &&Named| named.fails && !causes.contains(&named.id.as_str());
        self.fresh.iter().filter(strange).map(|named| named.key.clone()).collect()
    }
}

fn look_everywhere(scenario: &Scenario, target: &Target, before: &[String]) -> Result<Answer, Error> {
    let machines = target.machines();
    let mut answer = Answer { rank: Some(1), fresh: Vec::new(), took: 0.0 };
    for (look, causes) in scenario.looks() {
        let begun = Instant::now();
        let named = diagnose(&look, target, &machines)?;
        answer.took = answer.took.max(begun.elapsed().as_secs_f64());
        let place = rank(&named, before, &causes, &scenario.causes());
        answer.rank = answer.rank.zip(place).map(|(worst, place)| worst.max(place));
        let fresh = named.into_iter().filter(|named| !before.contains(&named.key));
        let known = |one: &Named, all: &[Named]| all.iter().any(|other| other.key == one.key);
        for one in fresh {
            if !known(&one, &answer.fresh) {
                answer.fresh.push(one);
            }
        }
    }
    Ok(answer)
}

/// Waits until nothing fails that did not before; what still does.
async fn remaining(scenario: &Scenario, target: &Target, before: &[String]) -> Result<Vec<String>, Error> {
    let machines = target.machines();
    let deadline = Instant::now() + CALM_PATIENCE;
    loop {
        let mut left = Vec::new();
        for (look, _) in scenario.looks() {
            let named = diagnose(&look, target, &machines)?;
            let fresh = named.into_iter().filter(|named| named.fails && !before.contains(&named.key));
            left.extend(fresh.map(|named| named.key));
        }
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn repair(scenario: &Scenario, target: &Target) -> Result<(), Error> {
    let machines = target.machines();
    if scenario.fix {
        return scenario.looks().iter().try_for_each(|(look, causes)| fix(look, causes, target, &machines));
    }
    for step in &scenario.repair {
        match &step.on {
            Some(machine) => machines.run(machine, &step.run, &[]).map(|_| ())?,
            None => {
                let ran = run_here("sh", &["-c", &step.run], &target.kubeconfig()?, &machines)?;
                if !ran.ok {
                    let (machine, command) = ("this machine".to_owned(), step.run.clone());
                    return Err(Error::Command { machine, command, why: ran.said });
                }
            }
        }
    }
    Ok(())
}

/// Pods outside of the drill's namespace: who they are, and how often their containers were restarted.
type Pods = BTreeMap<String, Pod>;

#[derive(Debug, PartialEq, Eq)]
struct Pod {
    uid: String,
    restarts: i64,
    node: String,
}

impl Pod {
    /// Whether a scenario says that it restarts this pod: by how its name begins, or by `node/` and where it runs.
    fn is_touched(&self, name: &str, touches: &[String]) -> bool {
        touches.iter().any(|touched| match touched.strip_prefix("node/") {
            Some(node) => self.node == node,
            None => name.starts_with(touched.as_str()),
        })
    }
}

async fn pods(target: &Target) -> Result<Pods, Error> {
    let pods = target.api().await?.list("/api/v1/pods").await?;
    let others = pods.iter().filter(|pod| {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        !namespace.starts_with(crate::api::NAMESPACE) && pod["metadata"]["deletionTimestamp"].is_null()
    });
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(others
        .map(|pod| {
            let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
            let restarts = statuses.map(|status| status["restartCount"].as_i64().unwrap_or_default()).sum();
            let (uid, node) = (text(&pod["metadata"]["uid"]), text(&pod["spec"]["nodeName"]));
            (text(&pod["metadata"]["name"]), Pod { uid, restarts, node })
        })
        .collect())
}

fn bystanders(before: &Pods, after: &Pods, touches: &[String]) -> Vec<String> {
    let others = before.iter().filter(|(name, pod)| !pod.is_touched(name, touches));
    let changed = others.filter(|(name, was)| after.get(*name) != Some(was));
    changed
        .map(|(name, was)| match after.get(name) {
            Some(now) => format!("{name}: restarted {} times before, {} after", was.restarts, now.restarts),
            None => format!("{name}: gone"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_not_meant_is_a_bystander() {
        let pod = |name: &str, uid: &str, restarts, node: &str| {
            (name.to_owned(), Pod { uid: uid.to_owned(), restarts, node: node.to_owned() })
        };
        let before = Pods::from([
            pod("web-1", "a", 0, "n"),
            pod("kube-scheduler-n", "b", 1, "n"),
            pod("dns-1", "c", 0, "n"),
            pod("web-2", "e", 0, "off"),
        ]);
        let after = Pods::from([
            pod("web-1", "a", 1, "n"),
            pod("kube-scheduler-n", "b", 4, "n"),
            pod("new", "d", 0, "n"),
            pod("web-2", "e", 1, "off"),
        ]);
        let found = bystanders(&before, &after, &["kube-scheduler".to_owned(), "node/off".to_owned()]);
        assert_eq!(found, ["dns-1: gone", "web-1: restarted 0 times before, 1 after"]);
        let found = bystanders(&before, &after, &["web".to_owned(), "kube".to_owned(), "dns".to_owned()]);
        assert!(found.is_empty(), "{found:?}");
    }
}
