//! What scenarios write as `$(name)`: the machines and the places of the cluster that they are done on.
//!
//! Pure. Invariant: a name that is not known is an error, never left as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Every name that there is.
const NAMES: [&str; 9] = [
    "controlPlane",
    "controlPlane.address",
    "worker",
    "worker.address",
    "manifests",
    "image",
    "programs",
    "kedge",
    "namespace",
];

/// Names and what they stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The first control plane and a worker (or the same machine again) with their addresses, and the usual places;
    /// `images` are one for pods that have only to run, and one with Kedge's program in it.
    pub fn new(
        control_plane: (&str, &str),
        worker: (&str, &str),
        manifests: &str,
        images: (&str, &str),
        kedge: &str,
    ) -> Self {
        let values = [
            control_plane.0,
            control_plane.1,
            worker.0,
            worker.1,
            manifests,
            images.0,
            images.1,
            kedge,
            crate::api::NAMESPACE,
        ];
        Self(NAMES.iter().zip(values).map(|(&name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Something for each name, to check a scenario with.
    pub(crate) fn placeholders() -> Self {
        Self(NAMES.iter().map(|&name| (name.to_owned(), name.to_owned())).collect())
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Replaces them in every text of a document.
    pub(crate) fn replace(&self, value: Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => Value::String(self.replace_in(&text)?),
            Value::Array(items) => items.into_iter().map(|item| self.replace(item)).collect::<Result<_, _>>()?,
            Value::Object(fields) => Value::Object(
                fields
                    .into_iter()
                    .map(|(name, field)| Ok((name, self.replace(field)?)))
                    .collect::<Result<_, String>>()?,
            ),
            other => other,
        })
    }

    fn replace_in(&self, text: &str) -> Result<String, String> {
        let mut done = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("$(") {
            let Some((name, next)) = after.split_once(')') else { break };
            done.push_str(before);
            // In commands, `$(...)` is the shell's: names of this kind have neither blanks nor dashes.
            if name.chars().all(|c| c.is_ascii_alphabetic() || c == '.') {
                let value = self.0.get(name);
                done.push_str(value.ok_or_else(|| format!("there is no variable $({name})"))?);
                rest = next;
            } else {
                done.push_str("$(");
                rest = after;
            }
        }
        done.push_str(rest);
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_replaced_and_unknown_ones_refused() {
        let variables = Variables::new(("cp-1", "1.1.1.1"), ("w-1", "1.1.1.2"), "/m", ("i:1", "p:1"), "/k");
        let told = variables.replace(json!({"on": "$(worker)", "run": ["ping $(worker.address)", "x $(ls -l) $("]}));
        assert_eq!(told, Ok(json!({"on": "w-1", "run": ["ping 1.1.1.2", "x $(ls -l) $("]})));
        assert!(variables.replace(json!(["$(other)"])).is_err());
    }
}
