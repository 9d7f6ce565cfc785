//! A webhook as its configuration describes it, made ready once.

use std::time::Duration;

use kedge_meta::LabelSelector;
use serde_json::Value;

use crate::conditions::Conditions;
use crate::rules::{Asked, Rule};
use crate::selector::selects;
use crate::target::Target;

/// What a webhook does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// It may change objects.
    Mutating,
    /// It may only refuse them.
    Validating,
}

/// One webhook.
#[derive(Debug)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// Its configuration's name.
    pub configuration: String,
    /// Where it is; a text where the configuration does not say.
    pub target: Result<Target, String>,
    /// Requests go on where it can't be asked.
    pub ignores_failure: bool,
    /// Requests in other versions of its resources are its business too.
    pub is_equivalent: bool,
    /// It may be asked about requests that are not carried out.
    pub takes_dry_run: bool,
    /// It is asked again where somebody after it changed the object.
    pub is_reinvoked: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// `v1` or `v1beta1`, whichever it names first; absent where it knows neither.
    pub review_version: Option<&'static str>,
    /// Of namespaces.
    pub namespaces: LabelSelector,
    /// What else must hold.
    pub conditions: Conditions,
    objects: LabelSelector,
    rules: Vec<Rule>,
}

impl Hook {
    /// The webhooks of a configuration, in its order.
    pub fn read_all(configuration: &Value) -> Vec<Self> {
        let name = configuration.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let list = configuration["webhooks"].as_array().into_iter().flatten();
        list.map(|hook| Self::read(name, hook)).collect()
    }

    fn read(configuration: &str, hook: &Value) -> Self {
        let text = |field: &str| hook[field].as_str().unwrap_or_default();
        let versions = hook["admissionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let known = |version: &str| ["v1", "v1beta1"].into_iter().find(|known| *known == version);
        let ignores_failure = text("failurePolicy") == "Ignore";
        // Validation lets no other operators in.
        let selector = |field: &str| LabelSelector::from_object(&hook[field]).unwrap_or_default();
        Self {
            name: text("name").to_owned(),
            configuration: configuration.to_owned(),
            target: Target::read(&hook["clientConfig"]),
            ignores_failure,
            is_equivalent: text("matchPolicy") != "Exact",
            takes_dry_run: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            is_reinvoked: text("reinvocationPolicy") == "IfNeeded",
            timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(10)),
            review_version: versions.filter_map(known).next(),
            namespaces: selector("namespaceSelector"),
            conditions: Conditions::read(&hook["matchConditions"], ignores_failure),
            objects: selector("objectSelector"),
            rules: hook["rules"].as_array().into_iter().flatten().map(Rule::read).collect(),
        }
    }

    /// Whether a rule is about such a request.
    pub fn asks_for(&self, asked: &Asked<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(asked))
    }

    /// Which of several names of the same resource the first rule that knows one of them means.
    pub fn asks_for_one_of(&self, equivalents: &[Asked<'_>]) -> Option<usize> {
        self.rules.iter().find_map(|rule| equivalents.iter().position(|asked| rule.matches(asked)))
    }

    /// Whether the object, as it is or as it was, is selected.
    pub fn selects(&self, object: Option<&Value>, old: Option<&Value>) -> bool {
        self.objects.is_everything() || object.into_iter().chain(old).any(|object| selects(&self.objects, object))
    }

    /// Whether requests in a namespace with these labels are its business.
    pub fn selects_namespace(&self, namespace: &Value) -> bool {
        selects(&self.namespaces, namespace)
    }
}
