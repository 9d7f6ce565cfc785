//! `kedge upgrade`.

use std::ffi::OsString;
use std::io::{BufRead, Write};

use anyhow::Result;
use clap::Parser;
use kedge_supervisor::{UPGRADE_PHASES, Upgrade, UpgradeCommand as Command, UpgradeFlags as Asked, UpgradeSettings};

use crate::arguments::{
    ApplyCommand, Arguments, NodeUpgradeCommand, PlanOutput, UpgradeCommand, UpgradeFlags, ignored,
};
use crate::commands::init::on_one_line;
use crate::output::start_logging;

/// A phase, and a part of it.
type Phase = (String, Option<String>);

pub(crate) async fn run(flags: UpgradeFlags) -> Result<()> {
    start_logging(false);
    match flags.command {
        UpgradeCommand::Plan { wanted, shared, output } => {
            plan(UpgradeSettings::new(Command::Plan, shared.asked(wanted), takes_command)?, output).await
        }
        UpgradeCommand::Apply { command, wanted, flags } => {
            let (phase, wanted, flags) = match command {
                None => (None, wanted, flags),
                Some(ApplyCommand::Phase { phase, words, flags }) => {
                    let (part, version) = split(words);
                    (Some((phase, part)), version.or(wanted), *flags)
                }
            };
            let yes = flags.yes;
            change(Command::Apply, flags.asked(wanted), yes, phase).await
        }
        UpgradeCommand::Node { command, flags } => match command {
            None => change(Command::Node, flags.asked(), true, None).await,
            Some(NodeUpgradeCommand::Phase { phase, part, flags }) => {
                change(Command::Node, flags.asked(), true, Some((phase, part))).await
            }
        },
        UpgradeCommand::Diff { wanted, access, patches, context_lines } => {
            let asked = Asked { version: wanted, patches, context_lines, ..access.asked() };
            let settings = UpgradeSettings::new(Command::Diff, asked, takes_command)?;
            let text = Upgrade::new(settings, &|line| eprintln!("{line}")).diff().await;
            print!("{}", text.map_err(|error| on_one_line(&error))?);
            Ok(())
        }
    }
}

async fn change(command: Command, asked: Asked, yes: bool, phase: Option<Phase>) -> Result<()> {
    let settings = UpgradeSettings::new(command, asked, takes_command)?;
    let settings = UpgradeSettings { confirm: (!yes).then_some(ask as fn() -> bool), ..settings };
    let upgrade = Upgrade::new(settings, &|line| println!("{line}"));
    let done = match (command, phase) {
        (_, Some((phase, part))) => upgrade.phase(command, &phase, part.as_deref()).await,
        (Command::Apply, None) => upgrade.apply().await,
        _ => upgrade.node().await,
    };
    done.map_err(|error| on_one_line(&error))
}

/// The part of a phase, and the version: upstream has both after the phase's name.
fn split(words: Vec<String>) -> (Option<String>, Option<String>) {
    let is_part =
        |word: &String| word == "all" || UPGRADE_PHASES.iter().any(|(_, parts)| parts.contains(&word.as_str()));
    let mut words = words.into_iter().peekable();
    let part = words.next_if(is_part);
    (part, words.next())
}

async fn plan(settings: UpgradeSettings, output: PlanOutput) -> Result<()> {
    let say: kedge_supervisor::Say<'_> = match output {
        PlanOutput::Text => &|line| println!("{line}"),
        // Only the document goes where machines read.
        PlanOutput::Json | PlanOutput::Yaml => &|line| eprintln!("{line}"),
    };
    let plan = Upgrade::new(settings, say).plan().await.map_err(|error| on_one_line(&error))?;
    match output {
        PlanOutput::Text => print!("\n{}", plan.text()),
        PlanOutput::Json => println!("{}", serde_json::to_string_pretty(&plan)?),
        PlanOutput::Yaml => print!("{}", serde_yaml::to_string(&plan)?),
    }
    Ok(())
}

fn ask() -> bool {
    print!("[upgrade] Are you sure you want to proceed? [y/N]: ");
    let mut answer = String::new();
    // Who can't be asked has not agreed.
    let asked = std::io::stdout().flush().and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    asked.is_ok() && answer.trim().eq_ignore_ascii_case("y")
}

/// Parses the command line of a component as this binary would when it is started with it.
fn takes_command(component: &str, command: &[String]) -> Result<Vec<String>, String> {
    let words = command.iter().map(OsString::from).collect();
    let (mut words, without_effect) = ignored::split(component, words);
    words.insert(0, "kedge".into());
    match Arguments::try_parse_from(words) {
        Ok(_) => Ok(without_effect),
        Err(error) => Err(first_line(&error.to_string())),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_and_a_version_are_told_apart() {
        let check = |words: &[&str], part: Option<&str>, version: Option<&str>| {
            let (found, asked) = split(words.iter().map(|word| (*word).to_owned()).collect());
            assert_eq!((found.as_deref(), asked.as_deref()), (part, version), "{words:?}");
        };
        check(&[], None, None);
        check(&["v1.36.0"], None, Some("v1.36.0"));
        check(&["coredns", "v1.36.0"], Some("coredns"), Some("v1.36.0"));
    }

    #[test]
    fn flags_and_phases_are_read() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).map(drop);
        for line in [
            "kedge upgrade apply v1.36.0 --yes --config /a --patches /b --etcd-upgrade=false",
            "kedge upgrade apply phase addon coredns v1.36.0 --dry-run",
            "kedge upgrade apply phase control-plane --certificate-renewal",
            "kedge upgrade node phase kubelet-config --patches /b",
            "kedge upgrade diff --context-lines 1 --patches /b",
            "kedge upgrade plan --config /a -o json",
        ] {
            parse(line).unwrap();
        }
        assert!(parse("kedge upgrade plan --patches /b").is_err());
    }

    #[test]
    fn command_lines_of_components_are_tried() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let takes = |line: &str| takes_command(line.split(' ').next().unwrap(), &words(line));
        assert_eq!(takes("kube-scheduler --leader-elect=true --kubeconfig=/a"), Ok(Vec::new()));
        assert_eq!(
            takes("kube-scheduler --leader-elect=true --kubeconfig=/a --profiling=false"),
            Ok(vec!["--profiling".to_owned()])
        );
        let refused = takes("kube-scheduler --kubeconfig=/a --no-such-flag=1").unwrap_err();
        assert!(refused.contains("--no-such-flag"), "{refused}");
    }
}
