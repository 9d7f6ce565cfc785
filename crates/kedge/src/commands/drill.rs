//! `kedge drill`: practice in finding and mending what is wrong with a cluster.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use kedge_drill::{Drill, Plan, Run, Scenario, Target, Targets, find, load};
use serde::Serialize;

use crate::arguments::{DrillCommand, DrillFlags, DrillTarget, Output};
use crate::output::{start_logging_at, table};

pub(crate) async fn run(flags: DrillFlags) -> Result<()> {
    start_logging_at("error");
    let scenarios = load(flags.scenarios.as_deref())?;
    let form = flags.output;
    let open = |image: Option<String>| Drill::open(&flags.state_dir, image);
    match flags.command {
        DrillCommand::List => list(&scenarios, form),
        DrillCommand::Show { id, spoil } => show(&find(&scenarios, &id)?, spoil, form),
        DrillCommand::Start { id, target, dry_run } => {
            start(&open(target.image.clone())?, &find(&scenarios, &id)?, &target, dry_run, form).await
        }
        DrillCommand::Status => status(open(None)?.active()?.as_ref(), form),
        DrillCommand::Hint => {
            let hint = open(None)?.hint()?;
            println!("{}", hint.as_deref().unwrap_or("there are no more hints"));
            Ok(())
        }
        DrillCommand::Check { cause } => check(&open(None)?, cause.as_deref(), form).await,
        DrillCommand::Stop => stop(&open(None)?, form).await,
        DrillCommand::History => history(&open(None)?, form),
        DrillCommand::Verify { ids, target } => {
            verify(&open(target.image.clone())?, &scenarios, &ids, &target, form).await
        }
        DrillCommand::Matrix { file } => matrix(&file),
        DrillCommand::Schema => {
            print!("{}", kedge_drill::SCHEMA);
            Ok(())
        }
    }
}

fn list(scenarios: &[Scenario], form: Output) -> Result<()> {
    if form == Output::Json {
        return print_json(&scenarios);
    }
    let mut rows = vec![["ID", "LEVEL", "NEEDS", "WHAT A PERSON SEES"].map(str::to_owned).to_vec()];
    for scenario in scenarios {
        let place = &scenario.place;
        let needs = [
            (place.static_pods, "static pods"),
            (place.test_hosts, "test hosts"),
            (place.nodes > 1, "several nodes"),
            (place.shell, "--image"),
        ];
        let needs: Vec<&str> = needs.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
        rows.push(vec![scenario.id.clone(), scenario.level.to_string(), needs.join(", "), scenario.title.clone()]);
    }
    print!("{}", table(&rows));
    Ok(())
}

fn show(scenario: &Scenario, spoil: bool, form: Output) -> Result<()> {
    match (spoil, form) {
        (true, Output::Json) => print_json(scenario)?,
        (true, Output::Text) => print!("{}", serde_yaml::to_string(scenario)?),
        (false, _) => println!("{}\n\n{}", scenario.title, scenario.story.trim()),
    }
    Ok(())
}

async fn start(drill: &Drill, scenario: &Scenario, flags: &DrillTarget, dry_run: bool, form: Output) -> Result<()> {
    let target = target(flags)?;
    let plan = drill.plan(scenario, &target).await?;
    if dry_run {
        return print_plan(&plan, form);
    }
    confirm(flags, &target, &plan, form)?;
    let started = drill.start(scenario, &target).await?;
    if form == Output::Json {
        return print_json(&started);
    }
    println!(
        "{} is broken, and it shows after {:.1} s.\n\n{}\n\n\
         kedge drill hint                 a hint (costs points)\n\
         kedge drill check --cause ID     name the cause, see whether it is mended\n\
         kedge drill stop                 bring everything back",
        target.told(),
        started.symptoms_after,
        scenario.story.trim()
    );
    Ok(())
}

fn print_plan(plan: &Plan, form: Output) -> Result<()> {
    if form == Output::Json {
        return print_json(plan);
    }
    println!("{} on {} would do:", plan.scenario.id, plan.target);
    for step in &plan.steps {
        println!("  {step}");
    }
    Ok(())
}

/// Test hosts are there to be broken; any other cluster only by somebody who says so.
fn confirm(flags: &DrillTarget, target: &Target, plan: &Plan, form: Output) -> Result<()> {
    if matches!(target, Target::TestHosts { .. }) || flags.yes {
        return Ok(());
    }
    print_plan(plan, form)?;
    if !std::io::stdin().is_terminal() {
        bail!("this breaks {}; say --yes", target.told());
    }
    println!("This breaks {}. Type `break` to go on:", target.told());
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() == "break" {
        true => Ok(()),
        false => bail!("nothing was done"),
    }
}

fn status(run: Option<&Run>, form: Output) -> Result<()> {
    match (run, form) {
        (run, Output::Json) => print_json(&run),
        (None, Output::Text) => {
            println!("no drill is going on");
            Ok(())
        }
        (Some(run), Output::Text) => {
            println!("{} on {}, since {}", run.scenario.id, run.target.told(), run.started);
            let seen = if run.seen.is_some() { "seen" } else { "not seen yet" };
            println!("symptoms: {seen}; hints taken: {} of {}", run.hints, run.scenario.hints.len());
            println!("\n{}", run.scenario.story.trim());
            Ok(())
        }
    }
}

async fn check(drill: &Drill, cause: Option<&str>, form: Output) -> Result<()> {
    let checked = drill.check(cause).await?;
    if form == Output::Json {
        return print_json(&checked);
    }
    match checked.right {
        Some(true) => println!("yes, that is the cause"),
        Some(false) => println!("no, that is not the cause"),
        None => {}
    }
    match checked.score {
        Some(score) => println!("it is mended: {score} points. End the drill with `kedge drill stop`"),
        None => println!("it is not mended yet:\n  {}", checked.missing.join("\n  ")),
    }
    Ok(())
}

async fn stop(drill: &Drill, form: Output) -> Result<()> {
    let stopped = drill.stop().await?;
    if form == Output::Json {
        return print_json(&stopped);
    }
    let outcome = &stopped.outcome;
    println!("everything is as it was; it was {}", stopped.cause);
    match outcome.account.repair {
        Some(repair) => println!("mended after {repair} s: {} points", outcome.score),
        None => println!("it was not mended: no points"),
    }
    Ok(())
}

fn history(drill: &Drill, form: Output) -> Result<()> {
    let outcomes = drill.history()?;
    if form == Output::Json {
        return print_json(&outcomes);
    }
    let mut rows =
        vec![["STARTED", "SCENARIO", "NAMED", "MENDED", "HINTS", "WRONG", "SCORE"].map(str::to_owned).to_vec()];
    let time = |seconds: Option<u64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds} s"));
    for outcome in outcomes {
        let account = outcome.account;
        rows.push(vec![
            outcome.started.strftime("%Y-%m-%d %H:%M").to_string(),
            outcome.scenario,
            time(account.detect),
            time(account.repair),
            account.hints.to_string(),
            account.wrong.to_string(),
            outcome.score.to_string(),
        ]);
    }
    print!("{}", table(&rows));
    Ok(())
}

async fn verify(
    drill: &Drill,
    scenarios: &[Scenario],
    ids: &[String],
    flags: &DrillTarget,
    form: Output,
) -> Result<()> {
    let target = target(flags)?;
    let chosen = ids.iter().map(|id| find(scenarios, id)).collect::<Result<Vec<_>, _>>()?;
    for scenario in &chosen {
        let plan = drill.plan(scenario, &target).await?;
        confirm(flags, &target, &plan, form)?;
    }
    let mut failed = Vec::new();
    for scenario in &chosen {
        match drill.verify(scenario, &target).await {
            Ok(verified) if form == Output::Json => println!("{}", serde_json::to_string(&verified)?),
            Ok(verified) => {
                let rank = verified.rank.map_or("not named".to_owned(), |rank| format!("named {rank}."));
                println!(
                    "{} {}: symptoms after {:.1} s, {rank} after {:.1} s, mended after {:.1} s{}",
                    verified.cause,
                    verified.scenario,
                    verified.symptoms_after,
                    verified.diagnosed_after,
                    verified.repaired_after,
                    verified.bystanders.iter().map(|one| format!("\n  bystander: {one}")).collect::<String>()
                );
            }
            Err(error) => {
                let text = crate::output::chain(&error.into());
                failed.push(scenario.id.as_str());
                match form {
                    Output::Json => {
                        println!(
                            "{}",
                            serde_json::json!({"scenario": scenario.id, "cause": scenario.causes().join("+"), "error": text})
                        );
                    }
                    Output::Text => println!("{} {}: {text}", scenario.causes().join("+"), scenario.id),
                }
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("{} of {} drills failed: {}", failed.len(), ids.len(), failed.join(", ")),
    }
}

fn matrix(file: &Path) -> Result<()> {
    let figures = [
        ("fixtures of every rule, in old and new wordings", kedge_diagnosis::ACCURACY.fixtures.to_string()),
        ("two troubles at once, of any two entries of the catalogue", kedge_diagnosis::ACCURACY.combined.to_string()),
    ];
    print!("{}", kedge_drill::matrix(&std::fs::read_to_string(file)?, &figures));
    Ok(())
}

fn target(flags: &DrillTarget) -> Result<Target> {
    if flags.this_machine {
        let host = || nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let node = flags.node_name.clone().unwrap_or_else(host);
        return Ok(Target::ThisMachine { node, kubeconfig: std::path::absolute(&flags.kubeconfig)? });
    }
    let clusters: PathBuf = std::path::absolute(&flags.clusters.clusters_dir)?;
    Ok(Targets { clusters }.test_hosts(flags.cluster.as_deref())?)
}

fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
