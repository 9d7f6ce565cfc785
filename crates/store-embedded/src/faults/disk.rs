//! A disk in memory that can be cut from power, filled up, or stalled.
//!
//! A cut keeps what was synced; of what was written since, each sector is kept or not, in any order. Everything random
//! follows from the seed.

use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

const SECTOR: usize = 512;

#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<(Mutex<Inner>, Condvar)>);

#[derive(Debug)]
struct Inner {
    synced: Vec<u8>,
    now: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: Vec<usize>,
    random: u64,
    /// How many more writes and syncs go through.
    left: Option<usize>,
    stalled: bool,
    waiting: bool,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        let (synced, now, dirty) = (Vec::new(), Vec::new(), Vec::new());
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let inner = Inner { synced, now, dirty, random, left: None, stalled: false, waiting: false };
        Self(Arc::new((Mutex::new(inner), Condvar::new())))
    }

    /// Every write and sync fails after `count` more.
    pub(super) fn fail_after(&self, count: usize) {
        self.0.0.lock().left = Some(count);
    }

    /// Writes work again, and nothing was lost.
    pub(super) fn repair(&self) {
        self.0.0.lock().left = None;
    }

    /// The power goes, and comes back.
    pub(super) fn cut_power(&self) {
        let mut inner = self.0.0.lock();
        let mut kept = std::mem::take(&mut inner.synced);
        // The length is metadata, which a journal keeps; what was never written reads as zeros.
        kept.resize(inner.now.len().max(kept.len()), 0);
        for sector in std::mem::take(&mut inner.dirty) {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(inner.now.len());
            if inner.flip() && !range.is_empty() {
                kept[range.clone()].copy_from_slice(&inner.now[range]);
            }
        }
        inner.now.clone_from(&kept);
        inner.synced = kept;
        inner.left = None;
    }

    /// Syncs wait from now on.
    pub(super) fn stall(&self) {
        self.0.0.lock().stalled = true;
    }

    /// Blocks until a sync waits.
    pub(super) fn wait_until_stalled(&self) {
        let (lock, moved) = &*self.0;
        let mut inner = lock.lock();
        while !inner.waiting {
            moved.wait(&mut inner);
        }
    }

    pub(super) fn resume(&self) {
        self.0.0.lock().stalled = false;
        self.0.1.notify_all();
    }
}

impl Inner {
    fn flip(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random & 1 == 0
    }

    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.0.0.lock();
        let offset = offset as usize;
        let bytes = inner.now.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.0.0.lock();
        inner.spend()?;
        inner.now.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (lock, moved) = &*self.0;
        let mut inner = lock.lock();
        while inner.stalled {
            inner.waiting = true;
            moved.notify_all();
            moved.wait(&mut inner);
        }
        inner.waiting = false;
        inner.spend()?;
        inner.dirty.clear();
        let now = inner.now.clone();
        inner.synced = now;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.0.0.lock();
        inner.spend()?;
        let offset = offset as usize;
        inner.now[offset..offset + data.len()].copy_from_slice(data);
        inner.dirty.extend(offset / SECTOR..(offset + data.len()).div_ceil(SECTOR));
        Ok(())
    }
}
