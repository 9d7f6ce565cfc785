//! Which failures deserve a line: pure, with the time as an argument.
//!
//! Causes that concern every request share one episode, whoever met them; others have one for each kind of request.
//! Invariant: an episode has a line at its beginning for each of its causes, then one every five minutes, and one at its
//! end; a beginning that follows an end too soon has none, and its failures are counted in the next line.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::failure::FailureCause;

/// How often a failure that goes on is mentioned.
const SUMMARY_EVERY: Duration = Duration::from_secs(300);
/// How long a cause that came back is not worth a line.
const QUIET: Duration = Duration::from_secs(30);
/// Kinds of requests that are told apart; what comes beyond shares one episode.
const BOUND: usize = 256;

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    First,
    Still,
    Over,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) told: Told,
    /// Whether it is about every request.
    pub(super) server: bool,
    pub(super) cause: FailureCause,
    pub(super) attempts: u64,
    pub(super) lasted: Duration,
}

/// Everything that fails now, and what was said about it.
#[derive(Debug, Default)]
pub(super) struct Episodes {
    server: Episode,
    requests: HashMap<String, Episode>,
}

#[derive(Debug, Default)]
struct Episode {
    /// Since when it fails, where it fails.
    began: Option<Instant>,
    cause: Option<FailureCause>,
    attempts: u64,
    /// Whether the log says that it fails.
    told: bool,
    last_line: Option<Instant>,
    first_lines: HashMap<FailureCause, Instant>,
}

impl Episodes {
    pub(super) fn failed(&mut self, what: &str, cause: FailureCause, now: Instant) -> Vec<Line> {
        if cause.is_about_the_server() {
            return self.server.failed(cause, now).map(|line| Line { server: true, ..line }).into_iter().collect();
        }
        // Whoever answers can be reached.
        let mut lines: Vec<Line> = Vec::new();
        if cause != FailureCause::Other {
            lines.extend(self.server.over(now).map(|line| Line { server: true, ..line }));
        }
        let name = if self.requests.len() < BOUND || self.requests.contains_key(what) { what } else { "" };
        lines.extend(self.requests.entry(name.to_owned()).or_default().failed(cause, now));
        lines
    }

    pub(super) fn succeeded(&mut self, what: &str, now: Instant) -> Vec<Line> {
        let server = self.server.over(now).map(|line| Line { server: true, ..line });
        let request = self.requests.get_mut(what).and_then(|episode| episode.over(now));
        server.into_iter().chain(request).collect()
    }

    /// Whether anything fails.
    pub(super) fn any(&self) -> bool {
        self.server.began.is_some() || self.requests.values().any(|episode| episode.began.is_some())
    }

    /// Why nothing gets through.
    pub(super) fn server_cause(&self) -> Option<FailureCause> {
        self.server.began.and(self.server.cause)
    }
}

impl Episode {
    fn failed(&mut self, cause: FailureCause, now: Instant) -> Option<Line> {
        let began = *self.began.get_or_insert(now);
        self.attempts += 1;
        self.cause = Some(cause);
        let since = |then: Option<Instant>| then.map(|then| now.saturating_duration_since(then));
        let told_before = self.first_lines.get(&cause).copied();
        // Within an episode a cause is new once; after an end it is new again, but not at once.
        let is_new = match told_before {
            None => true,
            Some(at) if at >= began => false,
            Some(_) => since(self.last_line).is_none_or(|ago| ago >= QUIET),
        };
        let told = match is_new {
            true => Told::First,
            false if since(self.last_line).is_none_or(|ago| ago >= SUMMARY_EVERY) => Told::Still,
            false => return None,
        };
        self.first_lines.insert(cause, now);
        self.last_line = Some(now);
        self.told = true;
        Some(self.line(told, cause, began, now))
    }

    fn over(&mut self, now: Instant) -> Option<Line> {
        let (began, cause) = (self.began.take()?, self.cause.take()?);
        if !std::mem::take(&mut self.told) {
            return None;
        }
        let line = self.line(Told::Over, cause, began, now);
        self.attempts = 0;
        self.last_line = Some(now);
        Some(line)
    }

    fn line(&self, told: Told, cause: FailureCause, began: Instant, now: Instant) -> Line {
        Line { told, server: false, cause, attempts: self.attempts, lasted: now.saturating_duration_since(began) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: FailureCause = FailureCause::ConnectionRefused;

    /// Plays `second: what cause` and `second: what ok`; the lines that come of it.
    fn play(events: &[(u64, &str, Option<FailureCause>)]) -> Vec<String> {
        let start = Instant::now();
        let mut episodes = Episodes::default();
        let mut said = Vec::new();
        for (second, what, cause) in events {
            let now = start + Duration::from_secs(*second);
            let lines = match cause {
                Some(cause) => episodes.failed(what, *cause, now),
                None => episodes.succeeded(what, now),
            };
            for Line { told, server, cause, attempts, lasted } in lines {
                let whom = if server { "server" } else { what };
                said.push(format!("{second}: {told:?} {whom} {cause} {attempts}x {}s", lasted.as_secs()));
            }
        }
        said
    }

    #[test]
    fn one_line_for_each_cause_a_summary_and_one_at_the_end() {
        let mut events: Vec<(u64, &str, Option<FailureCause>)> = Vec::new();
        for second in 0..600 {
            for what in ["watch pods", "watch nodes", "renew the lease", "write a pod's status"] {
                events.push((second, what, Some(REFUSED)));
            }
        }
        events.push((600, "renew the lease", None));
        events.push((600, "watch pods", None));
        assert_eq!(
            play(&events),
            [
                "0: First server connection refused 1x 0s",
                "300: Still server connection refused 1201x 300s",
                "600: Over server connection refused 2400x 600s",
            ]
        );
    }

    #[test]
    fn causes_of_one_outage_have_a_line_each() {
        let reset = FailureCause::ConnectionReset;
        let events = [
            (0, "a", Some(reset)),
            (1, "a", Some(REFUSED)),
            (2, "a", Some(reset)),
            (3, "a", Some(REFUSED)),
            (4, "b", None),
        ];
        assert_eq!(
            play(&events),
            [
                "0: First server connection reset 1x 0s",
                "1: First server connection refused 2x 1s",
                "4: Over server connection refused 4x 4s",
            ]
        );
    }

    #[test]
    fn what_one_request_meets_is_its_own() {
        let forbidden = Some(FailureCause::Forbidden);
        let events = [
            (0, "watch secrets", forbidden),
            (1, "watch pods", None),
            (2, "watch secrets", forbidden),
            (3, "watch nodes", forbidden),
            (4, "watch secrets", None),
        ];
        assert_eq!(
            play(&events),
            [
                "0: First watch secrets forbidden 1x 0s",
                "3: First watch nodes forbidden 1x 0s",
                "4: Over watch secrets forbidden 2x 4s",
            ]
        );
    }

    #[test]
    fn an_error_that_the_server_answers_ends_an_outage() {
        let events = [(0, "a", Some(REFUSED)), (5, "b", Some(FailureCause::Status(503))), (6, "b", None)];
        assert_eq!(
            play(&events),
            [
                "0: First server connection refused 1x 0s",
                "5: Over server connection refused 1x 5s",
                "5: First b status 503 1x 0s",
                "6: Over b status 503 1x 1s",
            ]
        );
    }

    #[test]
    fn coming_and_going_is_told_once_in_a_while() {
        let mut events = Vec::new();
        for second in 0..120 {
            events.push((second, "a", (second % 2 == 0).then_some(REFUSED)));
        }
        let said = play(&events);
        assert!(said.len() <= 9, "{said:#?}");
        let counted: u64 = said
            .iter()
            .filter(|line| line.contains("Over"))
            .map(|line| line.split(' ').find_map(|word| word.strip_suffix('x')).unwrap().parse::<u64>().unwrap())
            .sum();
        assert!(counted >= 40, "failures without a line are counted later: {said:#?}");
    }
}
