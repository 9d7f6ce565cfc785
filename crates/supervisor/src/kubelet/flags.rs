//! Lists inside single flags, in upstream's notation.
//!
//! Pure. Invariant: what cannot be read whole is refused whole.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;

/// `key=value,key=value`.
pub(crate) fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match kedge_meta::is_qualified_name(key) && kedge_meta::is_label_value(value) {
                true => Ok((key.to_owned(), value.to_owned())),
                false => Err(format!("{pair:?} is no label")),
            }
        })
        .collect()
}

/// `key=value:effect,key:effect`.
pub(crate) fn taints(text: &str) -> Result<Vec<Taint>, String> {
    text.split(',').map(str::trim).filter(|taint| !taint.is_empty()).map(taint).collect()
}

fn taint(text: &str) -> Result<Taint, String> {
    let wrong = || format!("invalid taint spec: {text}");
    let (left, effect) = text.split_once(':').ok_or_else(wrong)?;
    let (key, value) = match left.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (left, None),
    };
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
    if !known || !kedge_meta::is_qualified_name(key) || !kedge_meta::is_label_value(value.unwrap_or_default()) {
        return Err(wrong());
    }
    Ok(Taint {
        key: key.to_owned(),
        value: value.filter(|value| !value.is_empty()).map(str::to_owned),
        effect: effect.to_owned(),
        ..Taint::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_in_upstreams_notation() {
        let read = taints("a=b:NoSchedule,example.com/c:NoExecute").unwrap();
        let shown: Vec<_> =
            read.iter().map(|taint| (taint.key.as_str(), taint.value.as_deref(), taint.effect.as_str())).collect();
        assert_eq!(shown, [("a", Some("b"), "NoSchedule"), ("example.com/c", None, "NoExecute")]);
        assert_eq!(taints("").unwrap(), []);
        for wrong in ["a", "a=b", "a=b:Never", "a b:NoSchedule"] {
            assert_eq!(taints(wrong).unwrap_err(), format!("invalid taint spec: {wrong}"));
        }
        let read = labels("disk=fast,example.com/x=").unwrap();
        assert_eq!(
            read.into_iter().map(|(key, value)| key + "=" + &value).collect::<Vec<_>>(),
            ["disk=fast", "example.com/x="]
        );
        assert!(labels("a b=c").is_err());
    }
}
