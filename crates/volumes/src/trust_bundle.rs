//! `clusterTrustBundle` projections: trust anchors of the cluster, as one file of PEM blocks.
//!
//! Choosing and joining is pure. Invariant: each anchor appears once, whatever headers, text or order its bundles have.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::{Api, Client};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Why there are no anchors.
pub(crate) struct BundleError {
    pub(crate) message: String,
    pub(crate) transient: bool,
}

/// The anchors that a projection names; `None` where it is optional and there are none.
pub(crate) async fn anchors(
    client: &Client,
    projection: &ClusterTrustBundleProjection,
) -> Result<Option<String>, BundleError> {
    let api = Api::<ClusterTrustBundle>::all(client.clone());
    let unavailable = |error: kube::Error| BundleError { message: error.to_string(), transient: true };
    let missing = |message: String| match projection.optional.unwrap_or(false) {
        true => Ok(None),
        false => Err(BundleError { message, transient: false }),
    };
    if let Some(name) = projection.name.as_deref() {
        let found = api.get_opt(name).await.map_err(unavailable)?;
        return match found {
            Some(bundle) => Ok(Some(join(&[&bundle.spec.trust_bundle]))),
            None => missing(format!("clustertrustbundles.certificates.k8s.io {name:?} not found")),
        };
    }
    let signer = projection.signer_name.as_deref().unwrap_or_default();
    let Some(labels) = &projection.label_selector else {
        return missing("combination of signerName and labelSelector matched zero ClusterTrustBundles".to_owned());
    };
    let params = ListParams::default().fields(&format!("spec.signerName={signer}")).labels(&selector(labels));
    let found = api.list(&params).await.map_err(unavailable)?;
    let bundles: Vec<&str> = found.items.iter().map(|bundle| bundle.spec.trust_bundle.as_str()).collect();
    if bundles.is_empty() {
        return missing("combination of signerName and labelSelector matched zero ClusterTrustBundles".to_owned());
    }
    Ok(Some(join(&bundles)))
}

/// A selector as text; an empty one selects everything.
fn selector(labels: &LabelSelector) -> String {
    let equal = labels.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let sets = labels.match_expressions.iter().flatten().map(|expression| {
        let values = expression.values.clone().unwrap_or_default().join(",");
        let key = &expression.key;
        match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            _ => format!("!{key}"),
        }
    });
    equal.chain(sets).collect::<Vec<_>>().join(",")
}

/// All certificates of all bundles, each once.
fn join(bundles: &[&str]) -> String {
    let mut certificates = BTreeSet::new();
    for bundle in bundles {
        let blocks = bundle.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END));
        for (body, _) in blocks {
            let lines = body.lines().map(str::trim).filter(|line| !line.contains(':'));
            if let Ok(bytes) = STANDARD.decode(lines.collect::<String>()) {
                certificates.insert(bytes);
            }
        }
    }
    certificates.iter().map(|bytes| block(bytes)).collect()
}

fn block(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut block = format!("{BEGIN}\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        block.push_str(line);
        block.push('\n');
        rest = tail;
    }
    block + END + "\n"
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    #[test]
    fn each_certificate_appears_once() {
        let (a, b) = (block(b"certificate a"), block(b"certificate b"));
        let with_text = format!("some text\n{a}");
        assert_eq!(join(&[&a, &format!("{b}{a}"), &with_text]), format!("{a}{b}"));
        assert_eq!(join(&["nothing"]), "");
        assert!(block(&[0; 100]).lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn selectors_as_text() {
        let expression = |key: &str, operator: &str, values: &[&str]| LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        let labels = LabelSelector {
            match_labels: Some([("a".to_owned(), "1".to_owned())].into()),
            match_expressions: Some(vec![expression("b", "In", &["x", "y"]), expression("c", "DoesNotExist", &[])]),
        };
        assert_eq!(selector(&labels), "a=1,b in (x,y),!c");
        assert_eq!(selector(&LabelSelector::default()), "");
    }
}
