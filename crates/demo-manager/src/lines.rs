//! Lines in the form of upstream's logs: severity, date, time, thread, place, text.
//!
//! Not Kedge's own log. Invariant: a line is written whole.

use std::io::Write as _;

use jiff::Timestamp;

/// What is as it should be.
pub(crate) fn information(place: &str, text: &str) {
    write(&line('I', Timestamp::now(), place, text));
}

/// What is not.
pub(crate) fn error(place: &str, text: &str) {
    write(&line('E', Timestamp::now(), place, text));
}

/// What the library's HTTP server says, which has a log of its own.
pub(crate) fn of_server(text: &str) {
    write(&format!("{} http: {text}\n", Timestamp::now().strftime("%Y/%m/%d %H:%M:%S")));
}

fn line(severity: char, now: Timestamp, place: &str, text: &str) -> String {
    format!("{severity}{} {:>7} {place}] {text}\n", now.strftime("%m%d %H:%M:%S%.6f"), std::process::id())
}

fn write(line: &str) {
    // Nobody is left to be told where the log itself is closed.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_upstreams_form() {
        let now = "2023-05-09T06:47:21.957231Z".parse().expect("a time");
        let written = line('E', now, "leaderelection.go:330", "error retrieving resource lock a/b: x");
        let (head, rest) = written.split_at(21);
        assert_eq!(head, "E0509 06:47:21.957231");
        assert!(rest.ends_with(" leaderelection.go:330] error retrieving resource lock a/b: x\n"), "{rest}");
    }
}
