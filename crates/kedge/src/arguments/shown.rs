//! The command line read, and kept as the components' pages show it.

use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use kedge_supervisor::Flags;

use super::{Arguments, Command};

/// Reads a command line; who wrote a wrong one, or asked for help, is answered at once.
pub(crate) fn read(words: Vec<OsString>) -> (Command, Flags) {
    let mut command = Arguments::command();
    let matches = command.try_get_matches_from_mut(words).unwrap_or_else(|error| error.exit());
    match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => (arguments.command, flags(&command, &matches)),
        Err(error) => error.format(&mut command).exit(),
    }
}

/// Each flag of the command that was given, with what it is set to, also where only its default says so; nothing where
/// there is none.
fn flags(command: &clap::Command, matches: &ArgMatches) -> Flags {
    let Some((name, matches)) = matches.subcommand() else { return Flags::new() };
    let arguments = command.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
    let value = |argument: &clap::Arg| {
        let values = matches.try_get_raw(argument.get_id().as_str()).ok()?;
        let values = values.into_iter().flatten().map(|value| value.to_string_lossy());
        Some((argument.get_long()?.to_owned(), values.collect::<Vec<_>>().join(",")))
    };
    arguments.filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version")).filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_as_they_are_set() {
        let line =
            "kedge kube-scheduler --config=/c --leader-elect=false --v 3 --authorization-always-allow-paths=/a,/b";
        let (command, flags) = read(line.split(' ').map(OsString::from).collect());
        assert!(matches!(command, Command::KubeScheduler(_)));
        let check = |flag: &str, value: Option<&str>| assert_eq!(flags.get(flag).map(String::as_str), value, "{flag}");
        check("config", Some("/c"));
        check("leader-elect", Some("false"));
        check("v", Some("3"));
        check("authorization-always-allow-paths", Some("/a,/b"));
        check("bind-address", Some("0.0.0.0"));
        check("kubeconfig", Some(""));
        check("help", None);
        let (_, flags) = read(["kedge", "up", "--demo"].map(OsString::from).into());
        assert_eq!((flags["demo"].as_str(), flags["doctor"].as_str()), ("true", "false"));
    }
}
