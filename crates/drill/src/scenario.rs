//! A scenario: what a person sees, what is broken, which symptoms must appear, the true cause, hints, the repair.
//!
//! Pure. Invariant: a scenario that was read has nothing that is unknown, and names nothing that does not exist.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::Action;
use crate::error::Error;
use crate::finding::Look;
use crate::probe::Probe;
use crate::variables::Variables;

/// Longer waits are mistakes.
const MOST_SECONDS: u64 = 900;
/// More steps are mistakes.
const MOST_STEPS: usize = 20;

/// A drill as its file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// Its name: lower-case letters, digits and dashes.
    pub id: String,
    /// One line, without the cause.
    pub title: String,
    /// What a person meets.
    pub story: String,
    /// The entry of the catalogue of failures that is the true cause.
    pub cause: String,
    /// From 1 (easy) to 3.
    #[serde(default = "one")]
    pub level: u8,
    /// On which clusters it can be done.
    #[serde(default, rename = "where")]
    pub place: Where,
    /// From where the doctor sees the cause.
    pub diagnose: Look,
    /// What is done, in order.
    #[serde(rename = "break")]
    pub steps: Vec<Action>,
    /// What must then be seen.
    pub symptoms: Vec<Probe>,
    /// Within how many seconds.
    #[serde(default = "minute")]
    pub within: u64,
    /// Help, from little to all of it.
    pub hints: Vec<String>,
    /// What mends it, as a person would do it.
    pub repair: Vec<Repair>,
    /// Whether the doctor mends it by itself: `--fix` from where the cause is seen takes the place of the repair.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fix: bool,
    /// Further causes, where several scenarios are done at once; no file has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
    /// What is seen where all is well: before the drill, and when it is repaired.
    pub repaired: Vec<Probe>,
    /// Which pods the drill itself restarts: how their names begin, or `node/NAME` for all that run there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<String>,
    /// Seconds in which a practised person names the cause, and mends it.
    #[serde(default)]
    pub par: Par,
}

/// The cause of a scenario that is done at once with another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Other {
    /// The entry of the catalogue of failures.
    pub cause: String,
    /// From where the doctor sees it.
    pub diagnose: Look,
}

/// On which clusters a scenario can be done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Where {
    /// The control plane must be static pods, as `kedge init` and kubeadm make them.
    #[serde(default)]
    pub static_pods: bool,
    /// The nodes must be test hosts of `kedge cluster`: they can be switched off, and their cables pulled.
    #[serde(default)]
    pub test_hosts: bool,
    /// The image of its pods must have a shell: one is named with `--image`.
    #[serde(default)]
    pub shell: bool,
    /// So many nodes at least.
    #[serde(default = "one")]
    pub nodes: u8,
}

/// A step of the documented repair.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Repair {
    /// What it does.
    pub text: String,
    /// The machine to do it on; where absent, wherever kubectl is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The commands, for a shell.
    pub run: String,
}

/// Times that a practised person needs, in seconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Par {
    /// To name the cause.
    pub detect: u64,
    /// To mend it.
    pub repair: u64,
}

impl Default for Par {
    fn default() -> Self {
        Self { detect: 300, repair: 600 }
    }
}

fn one() -> u8 {
    1
}

fn minute() -> u64 {
    60
}

impl Scenario {
    /// Reads a scenario, with its variables as they are written.
    pub fn read(text: &str) -> Result<Self, Error> {
        let value: Value = serde_yaml::from_str(text).map_err(|error| unusable("?", error))?;
        let id = value["id"].as_str().unwrap_or("?").to_owned();
        let scenario: Self = serde_json::from_value(value).map_err(|error| unusable(&id, error))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The same with every variable replaced.
    pub fn with(&self, variables: &Variables) -> Result<Self, Error> {
        let value = serde_json::to_value(self).map_err(|error| unusable(&self.id, error))?;
        let value = variables.replace(value).map_err(|why| unusable(&self.id, why))?;
        serde_json::from_value(value).map_err(|error| unusable(&self.id, error))
    }

    /// The true causes: one, or one of each scenario that is done at once.
    pub fn causes(&self) -> Vec<&str> {
        std::iter::once(&self.cause).chain(self.others.iter().map(|other| &other.cause)).map(String::as_str).collect()
    }

    /// From where the doctor has to look, and which true causes it must name there.
    pub fn looks(&self) -> Vec<(Look, Vec<&str>)> {
        let mut looks: Vec<(Look, Vec<&str>)> = vec![(self.diagnose.clone(), vec![&self.cause])];
        for other in &self.others {
            match looks.iter_mut().find(|(look, _)| *look == other.diagnose) {
                Some((_, causes)) => causes.push(&other.cause),
                None => looks.push((other.diagnose.clone(), vec![&other.cause])),
            }
        }
        looks
    }

    fn check(&self) -> Result<(), Error> {
        let is_name = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        let problems = [
            (!is_name(&self.id), "id must consist of lower-case letters, digits and dashes"),
            (self.steps.is_empty(), "break has no step"),
            (self.steps.len() > MOST_STEPS, "break has more than 20 steps"),
            (self.symptoms.is_empty(), "symptoms are missing: a drill that nobody can see is none"),
            (self.repaired.is_empty(), "repaired is missing: nobody could tell that it is over"),
            (self.hints.is_empty(), "hints are missing"),
            (self.repair.is_empty(), "repair is missing"),
            (self.fix && !self.diagnose.can_fix(), "fix: the doctor mends through the API or on a machine only"),
            (!self.others.is_empty(), "others: several scenarios are done at once as ONE+OTHER"),
            (!(1..=3).contains(&self.level), "level is from 1 to 3"),
            (self.within == 0 || self.within > MOST_SECONDS, "within is from 1 to 900 seconds"),
        ];
        if let Some((_, why)) = problems.iter().find(|(is_wrong, _)| *is_wrong) {
            return Err(unusable(&self.id, why));
        }
        // Every variable is one that there is.
        self.with(&Variables::placeholders()).map(|_| ())
    }
}

fn unusable(id: &str, why: impl std::fmt::Display) -> Error {
    Error::Scenario { id: id.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
id: small
title: t
story: s
cause: H1
diagnose: {from: cluster}
break: [{do: setSysctl, on: $(worker), name: net.ipv4.ip_forward, value: '0'}]
symptoms: [{see: api, answers: true}]
hints: [h]
repair: [{text: t, run: 'true'}]
repaired: [{see: api, answers: true}]
";

    fn error(text: &str) -> String {
        Scenario::read(text).expect_err("it is wrong").to_string()
    }

    #[test]
    fn a_scenario_is_read_and_its_mistakes_are_named() {
        assert_eq!(Scenario::read(SMALL).expect("it is right").within, 60);
        assert!(error(&SMALL.replace("id: small", "id: Small")).contains("lower-case"));
        assert!(error(&SMALL.replace("story: s", "story: s\nstori: x")).contains("stori"));
        assert!(error(&SMALL.replace("$(worker)", "$(nobody)")).contains("$(nobody)"));
        assert!(error(&SMALL.replace("setSysctl", "setSysctls")).contains("setSysctls"));
        assert!(error(&SMALL.replace("name: net", "nam: net")).contains("nam"));
        assert!(error(&SMALL.replace("hints: [h]", "hints: []")).contains("hints"));
    }
}
