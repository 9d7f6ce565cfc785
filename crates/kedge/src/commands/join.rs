//! `kedge join` and `kedge join phase`.

use anyhow::Result;
use kedge_supervisor::{JOIN_PHASES, Join, JoinSettings};

use crate::arguments::{JoinCommand, JoinFlags};
use crate::commands::init::{failed_phase, start_logging_with};

pub(crate) async fn run(flags: JoinFlags) -> Result<()> {
    let (options, phase, endpoint) = match flags.command {
        None => (flags.flags, None, flags.endpoint),
        Some(JoinCommand::Phase { phase, words, flags: options }) => {
            let (part, endpoint) = split(words);
            (*options, Some((phase, part)), endpoint.or(flags.endpoint))
        }
    };
    let v = options.v;
    start_logging_with(v);
    let settings = JoinSettings::new(options.asked(endpoint))?;
    let join = Join::new(settings, &|line| println!("{line}"))?;
    let done = match phase {
        None => join.run().await,
        Some((phase, part)) => join.phase(&phase, part.as_deref()).await,
    };
    done.map_err(|error| failed_phase(&error, v))
}

/// The part of a phase, and the endpoint: upstream has both after the phase's name.
fn split(words: Vec<String>) -> (Option<String>, Option<String>) {
    let is_part = |word: &String| word == "all" || JOIN_PHASES.iter().any(|(_, parts)| parts.contains(&word.as_str()));
    let mut words = words.into_iter().peekable();
    let part = words.next_if(is_part);
    (part, words.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_and_an_endpoint_are_told_apart() {
        let check = |words: &[&str], part: Option<&str>, endpoint: Option<&str>| {
            let (found, place) = split(words.iter().map(|word| (*word).to_owned()).collect());
            assert_eq!((found.as_deref(), place.as_deref()), (part, endpoint), "{words:?}");
        };
        check(&[], None, None);
        check(&["lb:6443"], None, Some("lb:6443"));
        check(&["certs"], Some("certs"), None);
        check(&["all", "lb:6443"], Some("all"), Some("lb:6443"));
    }
}
