//! The requests of a claim in one shape, whether exact or alternatives of a prioritized list.

use k8s_openapi::api::resource::v1::{
    CapacityRequirements, DeviceClass, DeviceRequest, DeviceSelector, DeviceToleration, ResourceClaim,
};

use crate::search::Place;

/// How many devices a request wants.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Count(usize),
    /// All that match; filled in once the pools are known.
    All(Vec<Place>),
}

/// One request, or one alternative of it.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    /// The request whose alternative this is.
    pub(crate) parent: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) class_name: &'a str,
    pub(crate) class: Option<&'a DeviceClass>,
    pub(crate) selectors: &'a [DeviceSelector],
    pub(crate) wanted: Wanted,
    pub(crate) is_admin: bool,
    pub(crate) tolerations: &'a [DeviceToleration],
    pub(crate) capacity: Option<&'a CapacityRequirements>,
}

impl Ask<'_> {
    /// As results name it: `request` or `request/alternative`.
    pub(crate) fn full_name(&self) -> String {
        match self.parent {
            Some(parent) => format!("{parent}/{}", self.name),
            None => self.name.to_owned(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        match &self.wanted {
            Wanted::Count(count) => *count,
            Wanted::All(places) => places.len(),
        }
    }

    /// Whether one of `names` means this request, its parent's name included. No names mean all.
    pub(crate) fn is_among(&self, names: &[String]) -> bool {
        let base = self.parent.unwrap_or(self.name);
        names.is_empty() || names.iter().any(|name| name == base) || names.contains(&self.full_name())
    }
}

fn wanted(mode: Option<&str>, count: Option<i64>) -> Result<Wanted, String> {
    match mode.unwrap_or_default() {
        "" | "ExactCount" => Ok(Wanted::Count(usize::try_from(count.unwrap_or(1)).unwrap_or_default())),
        "All" => Ok(Wanted::All(Vec::new())),
        other => Err(format!("unsupported count mode {other}")),
    }
}

/// The alternatives of one request, best first: one where it is exact.
pub(crate) fn alternatives(request: &DeviceRequest) -> Result<Vec<Ask<'_>>, String> {
    if let Some(exact) = &request.exactly {
        return Ok(vec![Ask {
            parent: None,
            name: &request.name,
            class_name: &exact.device_class_name,
            class: None,
            selectors: exact.selectors.as_deref().unwrap_or_default(),
            wanted: wanted(exact.allocation_mode.as_deref(), exact.count)?,
            is_admin: exact.admin_access == Some(true),
            tolerations: exact.tolerations.as_deref().unwrap_or_default(),
            capacity: exact.capacity.as_ref(),
        }]);
    }
    let alternative = |sub| {
        let sub: &k8s_openapi::api::resource::v1::DeviceSubRequest = sub;
        Ok(Ask {
            parent: Some(&request.name),
            name: &sub.name,
            class_name: &sub.device_class_name,
            class: None,
            selectors: sub.selectors.as_deref().unwrap_or_default(),
            wanted: wanted(sub.allocation_mode.as_deref(), sub.count)?,
            is_admin: false,
            tolerations: sub.tolerations.as_deref().unwrap_or_default(),
            capacity: sub.capacity.as_ref(),
        })
    };
    match request.first_available.as_deref() {
        None | Some([]) => Err("missing device class name (unsupported request type?)".to_owned()),
        Some(list) => list.iter().map(alternative).collect(),
    }
}

pub(crate) fn requests(claim: &ResourceClaim) -> &[DeviceRequest] {
    claim.spec.devices.as_ref().and_then(|devices| devices.requests.as_deref()).unwrap_or_default()
}

/// As upstream's messages name a claim.
pub(crate) fn claim_name(claim: &ResourceClaim) -> String {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", claim.metadata.name.as_deref().unwrap_or_default())
}
