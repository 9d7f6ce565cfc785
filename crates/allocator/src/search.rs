//! The search: claim by claim, request by request, device by device, with backtracking; the first full solution wins.
//!
//! Invariant: what is chosen at any moment violates no constraint, no counter and no capacity; taking back a choice
//! restores the state before it. The number of steps is bounded.

use std::collections::HashMap;

use k8s_openapi::api::resource::v1::{Device, DeviceTaint, DeviceToleration, ResourceClaim, ResourceSlice};

use crate::allocate::{AllocateError, Inventory, MOST_DEVICES, Site};
use crate::asks::{Ask, Wanted, claim_name};
use crate::capacity::{consumed, has_room};
use crate::constraints::Constraint;
use crate::counters::{Left, left, suffice};
use crate::pools::{Pool, State, device_is_at, devices};
use crate::taken::{Amounts, DeviceId};

/// Steps of one search. Upstream bounds the time instead (ten seconds).
// DIVERGES: a bound of steps keeps the decision independent of the clock.
const MOST_STEPS: u32 = 30_000;

/// A device among the pools of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) pool: usize,
    pub(crate) slice: usize,
    pub(crate) device: usize,
}

/// A request, or an alternative of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct At {
    pub(crate) claim: usize,
    pub(crate) request: usize,
    pub(crate) alternative: usize,
}

/// A device that was chosen.
pub(crate) struct Picked {
    pub(crate) at: At,
    pub(crate) place: Place,
    /// What it takes of a device that may be shared; `None` for one that is had as a whole.
    pub(crate) share: Option<Amounts>,
    is_admin: bool,
    draws_counters: bool,
}

/// How a part of the search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Yes,
    No,
    /// The claim would get more devices than it may have.
    TooMany,
}

pub(crate) struct Search<'a> {
    inventory: &'a Inventory<'a>,
    site: &'a Site<'a>,
    claims: &'a [&'a ResourceClaim],
    pools: &'a [Pool<'a>],
    asks: Vec<Vec<Vec<Ask<'a>>>>,
    constraints: Vec<Vec<Constraint<'a>>>,
    selectable: HashMap<(At, Place), bool>,
    counters: HashMap<usize, Left<'a>>,
    picked: Vec<Picked>,
    /// The alternative that was taken for each request.
    chosen: HashMap<(usize, usize), usize>,
    steps: u32,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        inventory: &'a Inventory<'a>,
        site: &'a Site<'a>,
        claims: &'a [&'a ResourceClaim],
        pools: &'a [Pool<'a>],
        asks: Vec<Vec<Vec<Ask<'a>>>>,
        constraints: Vec<Vec<Constraint<'a>>>,
    ) -> Self {
        Self {
            inventory,
            site,
            claims,
            pools,
            asks,
            constraints,
            selectable: HashMap::new(),
            counters: HashMap::new(),
            picked: Vec::new(),
            chosen: HashMap::new(),
            steps: 0,
        }
    }

    /// Searches; what was found is in `picked` and `chosen`.
    pub(crate) fn run(&mut self) -> Result<bool, AllocateError> {
        Ok(self.next_request(0, 0)? == Found::Yes)
    }

    pub(crate) fn ask(&self, at: At) -> &Ask<'a> {
        &self.asks[at.claim][at.request][at.alternative]
    }

    pub(crate) fn claim(&self, at: At) -> &'a ResourceClaim {
        self.claims[at.claim]
    }

    pub(crate) fn all_asks(&self) -> Vec<At> {
        let mut all = Vec::new();
        for (claim, requests) in self.asks.iter().enumerate() {
            for (request, alternatives) in requests.iter().enumerate() {
                all.extend((0..alternatives.len()).map(|alternative| At { claim, request, alternative }));
            }
        }
        all
    }

    pub(crate) fn set_all(&mut self, at: At, places: Vec<Place>) {
        self.asks[at.claim][at.request][at.alternative].wanted = Wanted::All(places);
    }

    /// The alternative that was taken for a request.
    pub(crate) fn chosen(&self, claim: usize, request: usize) -> &Ask<'a> {
        let alternative = self.chosen.get(&(claim, request)).copied().unwrap_or_default();
        &self.asks[claim][request][alternative]
    }

    pub(crate) fn picked(&self, claim: usize) -> impl Iterator<Item = &Picked> {
        self.picked.iter().filter(move |picked| picked.at.claim == claim)
    }

    pub(crate) fn pool(&self, place: Place) -> &'a Pool<'a> {
        &self.pools[place.pool]
    }

    pub(crate) fn slice(&self, place: Place) -> &'a ResourceSlice {
        self.pools[place.pool].slices[place.slice]
    }

    pub(crate) fn device(&self, place: Place) -> &'a Device {
        &devices(self.slice(place))[place.device]
    }

    pub(crate) fn id(&self, place: Place) -> DeviceId {
        let pool = self.pool(place);
        let device = self.device(place).name.clone();
        DeviceId { driver: pool.driver.to_owned(), pool: pool.name.to_owned(), device }
    }

    /// The fewest devices that a claim can get by with.
    pub(crate) fn fewest_devices(&self, claim: usize) -> usize {
        let fewest = |alternatives: &Vec<Ask<'_>>| alternatives.iter().map(Ask::count).min().unwrap_or_default();
        self.asks[claim].iter().map(fewest).fold(0, usize::saturating_add)
    }

    fn next_request(&mut self, claim: usize, request: usize) -> Result<Found, AllocateError> {
        if claim >= self.claims.len() {
            return Ok(Found::Yes);
        }
        if request >= self.asks[claim].len() {
            let found = self.next_request(claim + 1, 0)?;
            // Another choice for this claim may leave the next one a smaller alternative.
            return Ok(if found == Found::TooMany { Found::No } else { found });
        }
        let mut all_too_many = true;
        for alternative in 0..self.asks[claim][request].len() {
            let at = At { claim, request, alternative };
            match self.next_device(at, 0, Place { pool: 0, slice: 0, device: 0 })? {
                Found::Yes => {
                    self.chosen.insert((claim, request), alternative);
                    return Ok(Found::Yes);
                }
                Found::No => all_too_many = false,
                Found::TooMany => {}
            }
        }
        Ok(if all_too_many { Found::TooMany } else { Found::No })
    }

    /// Chooses device number `have` of a request, looking from `start` on, and everything after it.
    fn next_device(&mut self, at: At, have: usize, start: Place) -> Result<Found, AllocateError> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(AllocateError::TooLong);
        }
        let wanted = self.ask(at).count();
        let all = match &self.ask(at).wanted {
            Wanted::All(places) if places.is_empty() => return Ok(Found::No),
            Wanted::All(places) => Some(places.get(have).copied()),
            Wanted::Count(_) => None,
        };
        if have >= wanted {
            return self.next_request(at.claim, at.request + 1);
        }
        if self.picked(at.claim).count() + wanted - have > MOST_DEVICES {
            return Ok(Found::TooMany);
        }
        match all.flatten() {
            Some(place) => self.try_place(at, have, place, true),
            None => self.look(at, have, start),
        }
    }

    fn look(&mut self, at: At, have: usize, start: Place) -> Result<Found, AllocateError> {
        let pools = self.pools;
        for (pool, known) in pools.iter().enumerate().skip(start.pool) {
            if known.state != State::Usable {
                continue;
            }
            for (slice, known) in known.slices.iter().enumerate() {
                for device in 0..devices(known).len() {
                    let place = Place { pool, slice, device };
                    if place < start || !self.is_free(at, place) || !self.is_selectable(at, place)? {
                        continue;
                    }
                    match self.try_place(at, have, place, false)? {
                        Found::No => {}
                        other => return Ok(other),
                    }
                }
            }
        }
        Ok(Found::No)
    }

    fn try_place(&mut self, at: At, have: usize, place: Place, must: bool) -> Result<Found, AllocateError> {
        if !self.pick(at, place, must)? {
            return Ok(Found::No);
        }
        let next = Place { device: place.device + 1, ..place };
        let found = self.next_device(at, have + 1, next)?;
        if found != Found::Yes {
            self.take_back();
        }
        Ok(found)
    }

    /// Whether nobody has the device yet. Administrators may have what others have, but not twice in a claim.
    fn is_free(&self, at: At, place: Place) -> bool {
        let mut whole = self.picked.iter().filter(|picked| picked.place == place && picked.share.is_none());
        match self.ask(at).is_admin {
            true => !whole.any(|picked| picked.at.claim == at.claim),
            false => whole.next().is_none() && !self.inventory.taken.is_taken(&self.id(place)),
        }
    }

    /// Whether the device is what the class and the request select, and can be had on the node.
    pub(crate) fn is_selectable(&mut self, at: At, place: Place) -> Result<bool, AllocateError> {
        if let Some(known) = self.selectable.get(&(at, place)) {
            return Ok(*known);
        }
        let (ask, device, slice) = (self.ask(at), self.device(place), self.slice(place));
        let driver = &slice.spec.driver;
        let class = ask.class.map(|class| (class, class.spec.selectors.as_deref().unwrap_or_default()));
        let mut is_selectable = slice.spec.per_device_node_selection != Some(true) || device_is_at(self.site, device);
        if let Some((class, selectors)) = class.filter(|_| is_selectable) {
            let owner = format!("class {}", class.metadata.name.as_deref().unwrap_or_default());
            is_selectable = self.inventory.selectors.match_all(selectors, driver, device, &owner)?;
        }
        if is_selectable {
            let owner = format!("claim {}", claim_name(self.claims[at.claim]));
            is_selectable = self.inventory.selectors.match_all(ask.selectors, driver, device, &owner)?;
        }
        self.selectable.insert((at, place), is_selectable);
        Ok(is_selectable)
    }

    /// Whether a device has the capacity that is asked for.
    pub(crate) fn has_room(&self, at: At, place: Place) -> bool {
        let shared = self.inventory.taken.shared(&self.id(place));
        let here = self.picked.iter().filter(|picked| picked.place == place).filter_map(|picked| picked.share.as_ref());
        let used: Vec<&Amounts> = shared.into_iter().chain(here).collect();
        has_room(self.ask(at).capacity, self.device(place), &used)
    }

    fn pick(&mut self, at: At, place: Place, must: bool) -> Result<bool, AllocateError> {
        let (device, pool) = (self.device(place), self.pool(place));
        let may_share = device.allow_multiple_allocations == Some(true);
        let ask = self.ask(at).clone();
        if !self.is_free(at, place) || is_tainted(device, ask.tolerations) || !self.has_room(at, place) {
            return Ok(false);
        }
        let is_shared = self.inventory.taken.shared(&self.id(place)).is_some()
            || self.picked.iter().any(|picked| picked.place == place && picked.share.is_some());
        let draws_counters = device.consumes_counters.is_some() && !(may_share && is_shared);
        if draws_counters && !self.counters_suffice(place) {
            return Ok(false);
        }
        let constraints = &mut self.constraints[at.claim];
        let violated = constraints.iter_mut().position(|constraint| !constraint.add(&ask, pool.driver, device));
        if let Some(violated) = violated {
            constraints[..violated].iter_mut().for_each(|constraint| constraint.remove(&ask));
            return if must { Err(self.unsatisfied(at, place)) } else { Ok(false) };
        }
        let share = may_share.then(|| consumed(ask.capacity, device));
        self.picked.push(Picked { at, place, share, is_admin: ask.is_admin, draws_counters });
        Ok(true)
    }

    fn unsatisfied(&self, at: At, place: Place) -> AllocateError {
        let id = self.id(place);
        AllocateError::Unworkable(format!(
            "claim {}, request {}: cannot add device {}/{}/{} because a claim constraint would not be satisfied",
            claim_name(self.claims[at.claim]),
            self.ask(at).name,
            id.driver,
            id.pool,
            id.device,
        ))
    }

    fn counters_suffice(&mut self, place: Place) -> bool {
        let (pool, taken) = (self.pool(place), self.inventory.taken);
        let left = self.counters.entry(place.pool).or_insert_with(|| left(pool, taken));
        let drawing = self.picked.iter().filter(|picked| picked.place.pool == place.pool && picked.draws_counters);
        let device = |place: Place| &devices(pool.slices[place.slice])[place.device];
        suffice(left, drawing.map(|picked| device(picked.place)).chain([device(place)]))
    }

    fn take_back(&mut self) {
        let Some(picked) = self.picked.pop() else { return };
        let ask = self.ask(picked.at).clone();
        self.constraints[picked.at.claim].iter_mut().for_each(|constraint| constraint.remove(&ask));
    }
}

impl Picked {
    pub(crate) fn is_admin(&self) -> bool {
        self.is_admin
    }
}

/// Whether a taint keeps a device from being given away.
fn is_tainted(device: &Device, tolerations: &[DeviceToleration]) -> bool {
    let keeps = |taint: &&DeviceTaint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let tolerated = |taint: &DeviceTaint| tolerations.iter().any(|toleration| tolerates(toleration, taint));
    device.taints.iter().flatten().filter(keeps).any(|taint| !tolerated(taint))
}

fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let is_same = |wanted: &Option<String>, have: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == have)
    };
    let value = || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    is_same(&toleration.effect, &taint.effect)
        && is_same(&toleration.key, &taint.key)
        && match toleration.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => value(),
            "Exists" => true,
            _ => false,
        }
}
