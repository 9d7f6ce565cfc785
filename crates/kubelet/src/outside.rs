//! Work that may hang in the kernel (a file system whose server is gone), on threads of its own.
//!
//! It cannot end what hangs; it keeps others from waiting for it. Invariant: at most one such work of each kind and pod is
//! under way, and none of them holds a thread that others need.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The stack of such a thread. Where the API server is in the same process, its answers are made on it, for which the threads
/// of the runtime have two MiB; only what is touched takes memory.
const STACK_BYTES: usize = 4 << 20;

/// One kind of work of one pod.
pub(crate) struct Outside<T> {
    pending: Option<oneshot::Receiver<T>>,
}

impl<T> Default for Outside<T> {
    fn default() -> Self {
        Self { pending: None }
    }
}

impl<T: Send + 'static> Outside<T> {
    /// Whether earlier work still hangs (or was not waited for): the next result is that one's.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Waits for the work, or for the one that is under way already; `None` where it takes longer than `patience`.
    /// Cancel-safe: the next call waits on.
    pub(crate) async fn run<F>(&mut self, patience: Duration, work: impl FnOnce() -> F + Send + 'static) -> Option<T>
    where
        F: Future<Output = T>,
    {
        if self.pending.is_none() {
            self.pending = Some(spawn(work));
        }
        let result = tokio::time::timeout(patience, self.pending.as_mut()?).await.ok()?;
        self.pending = None;
        result.ok()
    }
}

/// Works of one kind: at most one for each key is under way.
pub(crate) struct OutsideByKey<T>(Mutex<HashMap<String, oneshot::Receiver<T>>>);

impl<T> Default for OutsideByKey<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static> OutsideByKey<T> {
    /// Waits for the work of this key, or for the one that is under way already; `None` where it takes longer than
    /// `patience`. Whoever stops waiting before that gives the result up.
    pub(crate) async fn run<F>(
        &self,
        key: &str,
        patience: Duration,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Option<T>
    where
        F: Future<Output = T>,
    {
        let pending = self.0.lock().remove(key);
        let mut pending = pending.unwrap_or_else(|| spawn(work));
        match tokio::time::timeout(patience, &mut pending).await {
            Ok(result) => result.ok(),
            Err(_) => {
                self.0.lock().insert(key.to_owned(), pending);
                None
            }
        }
    }
}

/// Runs work that may hang; its result is lost only with the thread.
pub(crate) fn spawn<T, F>(work: impl FnOnce() -> F + Send + 'static) -> oneshot::Receiver<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (sender, result) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name("volumes".to_owned()).stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || {
        // Whoever asked may have given up.
        let _ = sender.send(runtime.block_on(work()));
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "failed to start a thread for volumes");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_is_waited_for_and_not_started_twice() {
        let mut outside = Outside::default();
        let (release, hung) = std::sync::mpsc::channel::<u32>();
        let first = outside.run(Duration::ZERO, move || async move { hung.recv().unwrap_or_default() }).await;
        assert_eq!((first, outside.is_pending()), (None, true));
        let again = outside.run(Duration::ZERO, || async { unreachable!("one at a time") }).await;
        assert_eq!(again, None);
        release.send(7).unwrap();
        let done = outside.run(Duration::from_secs(60), || async { unreachable!("one at a time") }).await;
        assert_eq!((done, outside.is_pending()), (Some(7), false));
        assert_eq!(outside.run(Duration::from_secs(60), || async { 8 }).await, Some(8));
    }

    #[tokio::test]
    async fn keys_do_not_wait_for_each_other() {
        let works = OutsideByKey::default();
        let (release, hung) = std::sync::mpsc::channel::<u32>();
        let first = works.run("a", Duration::ZERO, move || async move { hung.recv().unwrap_or_default() }).await;
        assert_eq!(first, None);
        assert_eq!(works.run("b", Duration::from_secs(60), || async { 8 }).await, Some(8));
        assert_eq!(works.run("a", Duration::ZERO, || async { unreachable!("one at a time") }).await, None);
        release.send(7).unwrap();
        assert_eq!(works.run("a", Duration::from_secs(60), || async { unreachable!("one at a time") }).await, Some(7));
        assert!(works.0.lock().is_empty());
    }
}
