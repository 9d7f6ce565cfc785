//! Which names a definition gets: its own, unless another of its group has them already.
//!
//! Invariant: settling twice gives the same status, so that only changes are written.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::conditions::{Condition, has_condition, remove_condition, set_condition};
use crate::json::{at, items, text, texts};
use crate::review::{ApprovalState, approval};
use crate::structural;

/// The names that the definitions of one group hold.
#[derive(Debug, Default)]
pub struct NameBook {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl NameBook {
    /// The names accepted of the definitions of `group`.
    pub fn of<'a>(group: &str, definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut book = Self::default();
        for definition in definitions.filter(|definition| text(definition, &["spec", "group"]) == group) {
            let Some(names) = at(definition, &["status", "acceptedNames"]) else { continue };
            let owned = |field: &str| Some(text(names, &[field])).filter(|name| !name.is_empty()).map(str::to_owned);
            book.resources.extend(["plural", "singular"].iter().filter_map(|field| owned(field)));
            book.resources.extend(texts(names, &["shortNames"]).map(str::to_owned));
            book.kinds.extend(["kind", "listKind"].iter().filter_map(|field| owned(field)));
        }
        book
    }
}

/// Settles a definition's names and with them whether it is established. `now` is RFC 3339.
pub fn settle(definition: &mut Value, book: &NameBook, now: &str) {
    let (accepted, conflict) = accept(definition, book);
    if !definition["status"].is_object() {
        definition["status"] = json!({});
    }
    definition["status"]["acceptedNames"] = accepted;
    let (holds, reason, message) = match &conflict {
        None => (true, "NoConflicts", "no conflicts found"),
        Some((reason, message)) => (false, *reason, message.as_str()),
    };
    set_condition(definition, &Condition { kind: "NamesAccepted", holds, reason, message }, now);
    if !has_condition(definition, "Established") {
        let (holds, reason, message) = match conflict {
            None => (true, "InitialNamesAccepted", "the initial names have been accepted"),
            Some(_) => (false, "NotAccepted", "not all names are accepted"),
        };
        set_condition(definition, &Condition { kind: "Established", holds, reason, message }, now);
    }
    settle_approval(definition, now);
    settle_structure(definition, now);
}

/// The names it gets, and why it does not get all it asks for.
fn accept(definition: &Value, book: &NameBook) -> (Value, Option<(&'static str, String)>) {
    let empty = json!({});
    let wanted = at(definition, &["spec", "names"]).unwrap_or(&empty);
    let had = at(definition, &["status", "acceptedNames"]).unwrap_or(&empty);
    let mut accepted = json!({"plural": text(had, &["plural"]), "kind": text(had, &["kind"])});
    let mut take = |field: &'static str, reason: &'static str, used: &HashSet<String>| {
        let (name, own) = (text(wanted, &[field]), text(had, &[field]));
        let is_taken = name != own && used.contains(name);
        let name = if is_taken { own } else { name };
        if !name.is_empty() {
            accepted[field] = json!(name);
        }
        is_taken.then(|| (reason, in_use(text(wanted, &[field]))))
    };
    // The last conflict is the one that is told.
    let mut conflict = take("plural", "PluralConflict", &book.resources);
    conflict = take("singular", "SingularConflict", &book.resources).or(conflict);
    let kind = take("kind", "KindConflict", &book.kinds);
    let kind = take("listKind", "ListKindConflict", &book.kinds).or(kind);
    let own: Vec<&str> = texts(had, &["shortNames"]).collect();
    let taken: Vec<String> = texts(wanted, &["shortNames"])
        .filter(|name| !own.contains(name) && book.resources.contains(*name))
        .map(in_use)
        .collect();
    let short = if taken.is_empty() { wanted } else { had };
    if !taken.is_empty() {
        let text = if taken.len() == 1 { taken[0].clone() } else { format!("[{}]", taken.join(", ")) };
        conflict = Some(("ShortNamesConflict", text));
    }
    conflict = kind.or(conflict);
    for (field, from) in [("shortNames", short), ("categories", wanted)] {
        if !items(from, &[field]).is_empty() {
            accepted[field] = from[field].clone();
        }
    }
    (accepted, conflict)
}

fn in_use(name: &str) -> String {
    format!("\"{name}\" is already in use")
}

fn settle_approval(definition: &mut Value, now: &str) {
    let state = approval(definition);
    let (holds, reason, message) = match &state {
        ApprovalState::NotNeeded => return,
        ApprovalState::Approved(link) => (true, "ApprovedAnnotation", format!("approved in {link}")),
        ApprovalState::Bypassed(why) => (false, "UnapprovedAnnotation", format!("not approved: \"{why}\"")),
        ApprovalState::Invalid(why) => (false, "InvalidAnnotation", why.clone()),
        ApprovalState::Missing(why) => (false, "MissingAnnotation", why.clone()),
    };
    let kind = "KubernetesAPIApprovalPolicyConformant";
    set_condition(definition, &Condition { kind, holds, reason, message: &message }, now);
}

/// Definitions that were stored before their schemas were checked say so.
fn settle_structure(definition: &mut Value, now: &str) {
    let wrong: Vec<String> = structural::check_all(definition).iter().map(ToString::to_string).collect();
    let kind = "NonStructuralSchema";
    match wrong.is_empty() {
        true => remove_condition(definition, kind),
        false => {
            let message = if wrong.len() == 1 { wrong[0].clone() } else { format!("[{}]", wrong.join(", ")) };
            set_condition(definition, &Condition { kind, holds: true, reason: "Violations", message: &message }, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        let names = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
            "listKind": format!("{kind}List"), "shortNames": short});
        json!({"metadata": {"name": format!("{plural}.a.io")}, "spec": {"group": "a.io", "names": names}})
    }

    fn condition<'a>(definition: &'a Value, kind: &str) -> &'a Value {
        items(definition, &["status", "conditions"]).iter().find(|known| known["type"] == kind).unwrap()
    }

    #[test]
    fn names_go_to_who_comes_first() {
        let mut first = definition("tools", "Tool", &["t"]);
        settle(&mut first, &NameBook::of("a.io", std::iter::empty()), "1");
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        assert_eq!(condition(&first, "NamesAccepted")["reason"], "NoConflicts");
        assert_eq!(condition(&first, "Established")["reason"], "InitialNamesAccepted");
        let settled = first.clone();
        settle(&mut first, &NameBook::of("a.io", [&settled].into_iter()), "2");
        assert_eq!(first, settled);

        let mut second = definition("hammers", "Tool", &["t", "h"]);
        settle(&mut second, &NameBook::of("a.io", [&first].into_iter()), "2");
        let names = condition(&second, "NamesAccepted");
        assert_eq!(names["reason"], "ListKindConflict");
        assert_eq!(names["message"], "\"ToolList\" is already in use");
        assert_eq!(condition(&second, "Established")["status"], "False");
        assert_eq!(second["status"]["acceptedNames"], json!({"plural": "hammers", "kind": ""}));
        settle(&mut second, &NameBook::of("b.io", [&first].into_iter()), "3");
        assert_eq!(condition(&second, "Established")["lastTransitionTime"], "3");
    }
}
