//! What a rule finds: what is wrong, with whom, how sure, proven by what, and what mends it.

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::evidence::{Item, Place};

/// Something that is wrong.
#[derive(Debug, Clone)]
pub struct Finding {
    /// With whom.
    pub subject: Subject,
    /// Where.
    pub place: Place,
    /// How sure.
    pub certainty: Certainty,
    /// How bad.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub text: String,
    /// The items that prove it, by their index.
    pub evidence: Vec<usize>,
    /// What mends it.
    pub repair: Repair,
    /// The ids that it explains, where those are fewer than its rule's.
    pub only: Option<&'static [&'static str]>,
    /// Objects that it is known to harm, for rules that explain what they [`touch`](crate::Scope::Touched).
    pub touches: Vec<Subject>,
}

impl Finding {
    /// A failure, seen where its first item was seen.
    pub(crate) fn failure(
        subject: Subject,
        item: &Item,
        certainty: Certainty,
        text: String,
        evidence: Vec<usize>,
        repair: Repair,
    ) -> Self {
        let (place, severity) = (item.place.clone(), Severity::Failure);
        Self { subject, place, certainty, severity, text, evidence, repair, only: None, touches: Vec::new() }
    }

    /// Explains these only.
    pub(crate) fn only(mut self, ids: &'static [&'static str]) -> Self {
        self.only = Some(ids);
        self
    }

    /// Harms these objects.
    pub(crate) fn touching(mut self, touches: Vec<Subject>) -> Self {
        self.touches = touches;
        self
    }

    /// Will fail, and works today.
    pub(crate) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Concerns a machine, although it was seen in the API.
    pub(crate) fn on_node(mut self, name: &str) -> Self {
        if !name.is_empty() {
            self.place = Place::Node(name.to_owned());
        }
        self
    }
}

/// Who has the trouble: an object of the API, or a part of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// A kind of the API, or `File`, `Certificate`, `Setting`.
    pub kind: String,
    /// Its namespace; empty for what has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Subject {
    /// One without a namespace.
    pub fn new(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: String::new(), name: name.to_owned() }
    }

    /// The machine at a place; text that a person pasted does not say which one.
    pub(crate) fn machine(place: &Place) -> Self {
        match place {
            Place::Node(name) => Self::new("Machine", name),
            Place::Cluster => Self::new("Machine", "unknown"),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(formatter, "{} {}", self.kind, self.name),
            namespace => write!(formatter, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Certainty {
    /// The evidence fits, and other causes would show the same.
    Possible,
    /// Other causes are unlikely.
    Likely,
    /// The evidence is the cause itself.
    Proven,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// It will fail, and works today.
    Warning,
    /// It fails.
    Failure,
}

/// What mends a cause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// In their order.
    pub steps: Vec<Step>,
    /// Whether data may be lost: such a repair is never made without a person.
    #[serde(default)]
    pub dangerous: bool,
}

/// One step of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What to do and why, in one sentence.
    pub text: String,
    /// The command, where one does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What a program does for it, where one can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
}

impl Repair {
    /// Steps of a text and a command; an empty command is none.
    pub fn of(steps: &[(&str, &str)]) -> Self {
        let step = |(text, command): &(&str, &str)| Step {
            text: (*text).to_owned(),
            command: (!command.is_empty()).then(|| (*command).to_owned()),
            action: None,
        };
        Self { steps: steps.iter().map(step).collect(), dangerous: false }
    }

    /// With a program for one of its steps, by its place.
    pub(crate) fn acting(mut self, step: usize, action: Action) -> Self {
        if let Some(step) = self.steps.get_mut(step) {
            step.action = Some(action);
        }
        self
    }
}
