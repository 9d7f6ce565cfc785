//! Keeps one table in the kernel: adopts what is there, applies differences, deletes stale chains later, and notices
//! when somebody else has changed the rules.
//!
//! Invariant: an error leaves the kernel's rules as they were, and the next call tries again from what is really there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::generation::ruleset_generation;
use crate::model::{Fragment, Skeleton};
use crate::nft::{Nft, NftError};
use crate::snapshot::Snapshot;
use crate::state::TableState;

/// For how long a chain stays after its last reference is gone.
const STALE_FOR: Duration = Duration::from_secs(1);
/// How many stale chains one transaction deletes.
const SWEEP_AT_ONCE: usize = 500;

/// Counting elements may take a hundredth of the time.
const COUNT_SHARE: u32 = 100;

/// What [`TableKeeper::apply`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// There was nothing to do.
    Nothing,
    /// One transaction with the changes.
    Difference,
    /// The whole table was written, over what was there.
    Adopted,
    /// The whole table was thrown away and written anew, in one transaction.
    Replaced,
}

/// What [`TableKeeper::verify`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// The table is as we left it.
    Intact,
    /// Somebody had changed or removed the table; it is written again.
    Restored,
}

/// The keeper of one table.
#[derive(Debug)]
pub struct TableKeeper {
    nft: Nft,
    state: TableState,
    in_kernel: bool,
    stale_since: BTreeMap<String, Instant>,
    generation: Option<u32>,
    /// Before that, elements are not counted again.
    count_after: Option<Instant>,
}

impl TableKeeper {
    /// A keeper that has not touched the kernel yet.
    pub fn new(nft: Nft, skeleton: Skeleton) -> Self {
        let state = TableState::new(skeleton);
        Self { nft, state, in_kernel: false, stale_since: BTreeMap::new(), generation: None, count_after: None }
    }

    /// The state, to ask for owners and conflicts.
    pub fn state(&self) -> &TableState {
        &self.state
    }

    /// Gives an owner a fragment instead of the one it had; an empty one removes the owner.
    pub fn put(&mut self, owner: &str, fragment: Fragment) {
        self.state.put(owner, fragment);
    }

    /// Whether [`apply`](Self::apply) has something to do.
    pub fn is_dirty(&self) -> bool {
        !self.in_kernel || self.state.is_dirty()
    }

    /// Brings the kernel to what the fragments say.
    pub async fn apply(&mut self) -> Result<Applied, NftError> {
        if !self.is_dirty() {
            return Ok(Applied::Nothing);
        }
        if !self.in_kernel || !self.state.changed_sets().is_empty() {
            return self.adopt().await;
        }
        let script = self.state.difference();
        if script.is_empty() {
            self.state.confirm_difference();
            return Ok(Applied::Nothing);
        }
        let before = ruleset_generation().ok().filter(|now| self.generation == Some(*now));
        match self.nft.run(&script).await {
            Ok(()) => {
                self.state.confirm_difference();
                self.after_change(before);
                Ok(Applied::Difference)
            }
            Err(NftError::Refused { message }) => {
                tracing::warn!(
                    table = self.state.skeleton().name,
                    message,
                    "a change was refused; writing the whole table"
                );
                self.adopt().await
            }
            Err(error) => Err(error),
        }
    }

    async fn adopt(&mut self) -> Result<Applied, NftError> {
        self.in_kernel = false;
        let before = ruleset_generation().ok();
        let (family, name) = (self.state.skeleton().family, self.state.skeleton().name.clone());
        if self.state.changed_sets().is_empty()
            && let Some(existing) = self.nft.snapshot(family, &name).await?
        {
            match self.nft.run(&self.state.adoption(&existing)).await {
                Ok(()) => {
                    self.confirm_adoption(&existing, before);
                    return Ok(Applied::Adopted);
                }
                Err(NftError::Refused { message }) => {
                    tracing::warn!(table = name, message, "the existing table can't be adopted; replacing it");
                }
                Err(error) => return Err(error),
            }
        }
        self.nft.run(&self.state.replacement()).await?;
        self.confirm_adoption(&Snapshot::default(), before);
        Ok(Applied::Replaced)
    }

    fn confirm_adoption(&mut self, existing: &Snapshot, before: Option<u32>) {
        self.state.confirm_adoption(existing);
        self.in_kernel = true;
        self.after_change(before);
    }

    fn after_change(&mut self, before: Option<u32>) {
        self.note_generation(before);
        let now = Instant::now();
        self.stale_since.retain(|name, _| self.state.stale().contains(name));
        for name in self.state.stale() {
            self.stale_since.entry(name.clone()).or_insert(now);
        }
    }

    /// A transaction moves the number by one. If it moved further, somebody else changed rules at the same time, and the
    /// next verification has to look; as it has to where the number is not known.
    fn note_generation(&mut self, before: Option<u32>) {
        self.generation =
            ruleset_generation().ok().filter(|now| before.map(|before| before.wrapping_add(1)) == Some(*now));
    }

    /// Deletes chains that nothing refers to any more; says when to come again, if there are younger ones.
    pub async fn sweep(&mut self) -> Result<Option<Duration>, NftError> {
        let now = Instant::now();
        let old_enough = |since: &Instant| now.duration_since(*since) >= STALE_FOR;
        let old = self.stale_since.iter().filter(|(_, since)| old_enough(since));
        let names: Vec<String> = old.map(|(name, _)| name.clone()).take(SWEEP_AT_ONCE).collect();
        if !names.is_empty() {
            let before = ruleset_generation().ok();
            let script = self.state.sweep(names.iter().map(String::as_str));
            names.iter().for_each(|name| {
                self.stale_since.remove(name);
            });
            if let Err(error) = self.nft.run(&script).await {
                // Young kernels count references late; the chains stay empty and are tried again.
                names.into_iter().for_each(|name| {
                    self.stale_since.insert(name, now);
                });
                return Err(error);
            }
            self.state.confirm_sweep(names.iter().map(String::as_str));
            self.note_generation(before.filter(|before| self.generation == Some(*before)));
        }
        Ok((!self.stale_since.is_empty()).then_some(STALE_FOR))
    }

    /// Finds out whether somebody else has changed the table, and writes it again if so. Costs one small question to the
    /// kernel while nobody in this network namespace changes any rules.
    pub async fn verify(&mut self) -> Result<Verified, NftError> {
        let now = ruleset_generation().ok();
        if !self.in_kernel || (now.is_some() && now == self.generation) {
            return Ok(Verified::Intact);
        }
        let skeleton = self.state.skeleton();
        let existing = self.nft.snapshot(skeleton.family, &skeleton.name).await?;
        if existing.is_some_and(|existing| self.state.matches(&existing)) {
            // Others change tables of their own all the time; elements are counted as often as that is cheap. Until then
            // the number stays the old one, so that the next round looks again.
            if self.count_after.is_some_and(|after| Instant::now() < after) {
                return Ok(Verified::Intact);
            }
            if self.has_all_elements().await? {
                self.generation = now;
                return Ok(Verified::Intact);
            }
        }
        tracing::warn!(table = self.state.skeleton().name, "somebody else has changed the table; writing it again");
        self.adopt().await?;
        Ok(Verified::Restored)
    }

    async fn has_all_elements(&mut self) -> Result<bool, NftError> {
        let began = Instant::now();
        let skeleton = self.state.skeleton();
        let counted = self.nft.count_elements(skeleton.family, &skeleton.name).await?;
        self.count_after = Some(Instant::now() + began.elapsed() * COUNT_SHARE);
        Ok(self.state.has_as_many(&counted))
    }
}
