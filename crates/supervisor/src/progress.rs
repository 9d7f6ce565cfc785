//! What a start or an end tells about itself while it goes on.

use std::time::{Duration, Instant};

/// One piece of progress.
#[derive(Debug, Clone)]
pub enum Progress {
    /// A step began.
    Started(&'static str),
    /// A step was done, in this time.
    Done(&'static str, Duration),
    /// A step failed.
    Failed(&'static str),
    /// Something that a person should know.
    Note(String),
}

/// Runs a step and reports its beginning and end.
pub(crate) async fn step<T, E>(
    report: &(impl Fn(Progress) + Sync),
    name: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    report(Progress::Started(name));
    let start = Instant::now();
    let result = work.await;
    match &result {
        Ok(_) => report(Progress::Done(name, start.elapsed())),
        Err(_) => report(Progress::Failed(name)),
    }
    result
}
