//! One question: what would these claims get on this node?

use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};

use crate::asks::{Ask, Wanted, alternatives, claim_name, requests};
use crate::constraints::Constraint;
use crate::pools::{Pool, State, devices, gather};
use crate::results::result;
use crate::search::{Place, Search};
use crate::selectors::Selectors;
use crate::taken::Taken;

/// Upstream's bound for the devices of one claim.
pub(crate) const MOST_DEVICES: usize = 32;

/// A node, as devices are matched against it.
pub struct Site<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it meets a selector.
    pub matches: &'a dyn Fn(&NodeSelector) -> bool,
}

/// What there is to give away.
pub struct Inventory<'a> {
    /// All slices of the cluster.
    pub slices: &'a [Arc<ResourceSlice>],
    /// All classes.
    pub classes: &'a [Arc<DeviceClass>],
    /// What others have.
    pub taken: &'a Taken,
    /// The compiled selectors.
    pub selectors: &'a Selectors,
}

/// Why it can't be said what the claims would get.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// This node's pools contradict themselves; others may do.
    #[error("invalid resource pools were encountered")]
    InvalidPools,
    /// A claim, a class or a slice can't be worked with.
    #[error("{0}")]
    Unworkable(String),
    /// The search took too many steps.
    #[error("timed out trying to allocate devices")]
    TooLong,
}

impl Inventory<'_> {
    /// What the claims get on a node, in their order; `None` where it has not enough for all of them.
    pub fn allocate(
        &self,
        site: &Site<'_>,
        claims: &[&ResourceClaim],
        share_id: &dyn Fn() -> String,
    ) -> Result<Option<Vec<AllocationResult>>, AllocateError> {
        let pools = gather(self.slices, site);
        let mut asks = Vec::new();
        let mut constraints = Vec::new();
        for claim in claims {
            asks.push(self.asks(claim)?);
            constraints.push(constraints_of(claim)?);
        }
        let mut search = Search::new(self, site, claims, &pools, asks, constraints);
        self.expand_all(&mut search, &pools)?;
        for (index, claim) in claims.iter().enumerate() {
            let least = search.fewest_devices(index);
            if least > MOST_DEVICES {
                let name = claim_name(claim);
                return Err(AllocateError::Unworkable(format!(
                    "claim {name}: number of requested devices {least} exceeds the claim limit of {MOST_DEVICES}"
                )));
            }
        }
        if !search.run()? {
            let is_invalid = pools.iter().any(|pool| pool.state == State::Invalid);
            return if is_invalid { Err(AllocateError::InvalidPools) } else { Ok(None) };
        }
        let results = claims.iter().enumerate().map(|(index, claim)| result(claim, index, &search, site, share_id));
        results.collect::<Result<_, _>>().map(Some).map_err(AllocateError::Unworkable)
    }

    fn asks<'c>(&'c self, claim: &'c ResourceClaim) -> Result<Vec<Vec<Ask<'c>>>, AllocateError> {
        let of = |why: String, request: &str| {
            AllocateError::Unworkable(format!("claim {}, request {request}: {why}", claim_name(claim)))
        };
        let mut all = Vec::new();
        for request in requests(claim) {
            let mut list = alternatives(request).map_err(|why| of(why, &request.name))?;
            for ask in &mut list {
                let found = self.classes.iter().find(|class| class.metadata.name.as_deref() == Some(ask.class_name));
                let missing = || {
                    let name = ask.class_name;
                    format!("could not retrieve device class {name}: deviceclass.resource.k8s.io \"{name}\" not found")
                };
                ask.class = Some(found.ok_or_else(|| of(missing(), ask.name))?);
            }
            all.push(list);
        }
        Ok(all)
    }

    /// Finds out what "all devices" means where a request wants them.
    fn expand_all(&self, search: &mut Search<'_>, pools: &[Pool<'_>]) -> Result<(), AllocateError> {
        for at in search.all_asks() {
            let ask = search.ask(at).clone();
            if !matches!(ask.wanted, Wanted::All(_)) {
                continue;
            }
            let mut places = Vec::new();
            for (pool, known) in pools.iter().enumerate() {
                let word = match known.state {
                    State::Usable => None,
                    State::Incomplete => Some("being updated"),
                    State::Invalid => Some("invalid"),
                };
                if let Some(word) = word {
                    return Err(AllocateError::Unworkable(format!(
                        "claim {}, request {}: asks for all devices, but resource pool {}/{} is currently {word}",
                        claim_name(search.claim(at)),
                        ask.name,
                        known.driver,
                        known.name,
                    )));
                }
                for (slice, known) in known.slices.iter().enumerate() {
                    for device in 0..devices(known).len() {
                        let place = Place { pool, slice, device };
                        if search.is_selectable(at, place)? && search.has_room(at, place) {
                            places.push(place);
                        }
                    }
                }
            }
            search.set_all(at, places);
        }
        Ok(())
    }
}

fn constraints_of(claim: &ResourceClaim) -> Result<Vec<Constraint<'_>>, AllocateError> {
    let list = claim.spec.devices.as_ref().and_then(|devices| devices.constraints.as_deref()).unwrap_or_default();
    let read = |(index, constraint)| {
        Constraint::new(constraint).ok_or_else(|| {
            let name = claim_name(claim);
            let text = format!("claim {name}, constraint #{index}: empty constraint (unsupported constraint type?)");
            AllocateError::Unworkable(text)
        })
    };
    list.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests;
