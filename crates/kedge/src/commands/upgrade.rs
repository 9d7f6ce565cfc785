//! `kedge upgrade`.

use std::ffi::OsString;
use std::io::{BufRead, Write};

use anyhow::Result;
use clap::Parser;
use kedge_supervisor::{Upgrade, UpgradeSettings};

use crate::arguments::{
    Arguments, NodeUpgradeFlags, PlanOutput, SharedFlags, UpgradeCommand, UpgradeFlags, WorkFlags, ignored,
};
use crate::commands::init::on_one_line;
use crate::output::start_logging;

pub(crate) async fn run(flags: UpgradeFlags) -> Result<()> {
    start_logging(false);
    match flags.command {
        UpgradeCommand::Plan { wanted, shared, output } => plan(with_shared(shared, wanted), output).await,
        UpgradeCommand::Apply { wanted, shared, work, yes, force } => {
            let settings = with_work(with_shared(shared, wanted), work);
            let confirm = (!yes && !force && !settings.dry_run).then_some(ask as fn() -> bool);
            let settings = UpgradeSettings { force, confirm, ..settings };
            let done = Upgrade::new(settings, &|line| println!("{line}")).apply().await;
            done.map_err(|error| on_one_line(&error))
        }
        UpgradeCommand::Node { shared, work } => {
            let settings = with_work(of_node(shared), work);
            let done = Upgrade::new(settings, &|line| println!("{line}")).node().await;
            done.map_err(|error| on_one_line(&error))
        }
        UpgradeCommand::Diff { wanted, kubeconfig, context_lines } => {
            let shared = NodeUpgradeFlags { kubeconfig, ignore_preflight_errors: Vec::new() };
            let settings = UpgradeSettings { version: wanted, ..of_node(shared) };
            let text = Upgrade::new(settings, &|line| eprintln!("{line}")).diff(context_lines).await;
            print!("{}", text.map_err(|error| on_one_line(&error))?);
            Ok(())
        }
    }
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

fn of_node(flags: NodeUpgradeFlags) -> UpgradeSettings {
    UpgradeSettings {
        version: None,
        kubeconfig: flags.kubeconfig,
        ignore_preflight_errors: flags.ignore_preflight_errors,
        allows_unstable: false,
        print_config: false,
        upgrades_etcd: true,
        renews_certificates: true,
        force: false,
        dry_run: false,
        skip_phases: Vec::new(),
        confirm: None,
        takes_command,
    }
}

fn with_shared(flags: SharedFlags, version: Option<String>) -> UpgradeSettings {
    UpgradeSettings {
        version,
        allows_unstable: flags.allow_experimental_upgrades,
        print_config: flags.print_config,
        upgrades_etcd: flags.etcd_upgrade,
        ..of_node(flags.node)
    }
}

fn with_work(settings: UpgradeSettings, flags: WorkFlags) -> UpgradeSettings {
    UpgradeSettings {
        dry_run: flags.dry_run,
        renews_certificates: flags.certificate_renewal,
        skip_phases: flags.skip_phases,
        ..settings
    }
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
