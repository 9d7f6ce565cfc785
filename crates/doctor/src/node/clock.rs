//! The machine's clock: whether it is kept right, and how far it is from that of the API server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use jiff::Timestamp;
use kedge_diagnosis::Fact;

use crate::cluster::chain;
use crate::node::program;
use crate::node::reading::Reading;

const PATIENCE: Duration = Duration::from_millis(1200);

/// Whether systemd says that the clock is synchronised.
pub(super) async fn read_state() -> Reading {
    let mut reading = Reading::default();
    if !Path::new("/run/systemd/system").is_dir() {
        return reading;
    }
    let said = program::output("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).await;
    match said.as_deref().map(|said| String::from_utf8_lossy(said).trim().to_owned()).as_deref() {
        Ok("yes") => reading.measure("timedatectl", "clock_synchronised", "kernel", 1.0, None),
        Ok("no") => reading.measure("timedatectl", "clock_synchronised", "kernel", 0.0, None),
        Ok(_) => reading.miss("state of the clock", "timedatectl does not say"),
        Err(why) => reading.miss("state of the clock", why),
    }
    reading
}

/// The difference to the API server's clock, as its answer's date has it, known to half a second; and that it does not
/// answer. One that takes its time is not seen: that may be this machine's load.
pub(super) async fn read_offset(kubeconfigs: Vec<PathBuf>) -> Reading {
    let mut reading = Reading::default();
    let Some(path) = kubeconfigs.into_iter().find(|path| path.exists()) else { return reading };
    let target = kedge_client::server_of_kubeconfig(&path).unwrap_or_default();
    match tokio::time::timeout(PATIENCE, offset(&path)).await {
        Ok(Ok(Some(seconds))) => reading.measure("date of an answer", "clock_offset_seconds", &target, seconds, None),
        Ok(Ok(None)) => reading.miss("clock of the API server", "its answer has no date"),
        Ok(Err(why)) => {
            reading.add(format!("the server of {}", path.display()), Fact::Call { target, error: Some(why) });
        }
        Err(_) => reading.miss("clock of the API server", "it does not answer in time"),
    }
    reading
}

/// How far this clock is ahead; an error where nobody answers.
async fn offset(kubeconfig: &Path) -> Result<Option<f64>, String> {
    let client = kedge_client::client_from_kubeconfig(kubeconfig).await.map_err(|error| chain(&error))?;
    let request = Request::get("/version").body(kube::client::Body::empty()).map_err(|error| error.to_string())?;
    let before = Timestamp::now();
    let answer = client.send(request).await.map_err(|error| chain(&error))?;
    let after = Timestamp::now();
    let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    Ok(date.and_then(parse).map(|theirs| difference(before, after, theirs)))
}

fn parse(date: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
}

/// How far this clock is ahead; nothing while the date lies within what its precision and the way there allow.
fn difference(before: Timestamp, after: Timestamp, theirs: Timestamp) -> f64 {
    let (before, after) = (before.as_millisecond() as f64 / 1000.0, after.as_millisecond() as f64 / 1000.0);
    let theirs = theirs.as_second() as f64;
    // Their second began between `theirs` and a second later.
    match () {
        () if before > theirs + 1.0 => before - theirs - 1.0,
        () if after < theirs => after - theirs,
        () => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_what_precision_does_not_explain() {
        let at = |millis: i64| Timestamp::from_millisecond(millis).expect("a time");
        assert_eq!(difference(at(100_500), at(100_600), at(100_000)), 0.0);
        assert_eq!(difference(at(130_000), at(130_100), at(100_000)), 29.0);
        assert_eq!(difference(at(90_000), at(90_500), at(100_000)), -9.5);
        assert!(parse("Sat, 21 Nov 2026 13:00:00 GMT").is_some());
    }
}
