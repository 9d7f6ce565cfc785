//! `kedge doctor --fix` and `kedge doctor undo`: shows each change, makes it when it is agreed to, sees whether the cause is
//! gone, and takes it back where things got worse.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use kedge_diagnosis::{Cause, Diagnosis, Severity};
use kedge_repair::{Host, Journal, Plan, RecordState, plan_repair};
use tokio::time::Instant;

use crate::arguments::DoctorUndoFlags;
use crate::output;

/// How long a cause may take to go away: a static pod is pulled down, made again, and has to become ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a component that starts again may hide things, or fail others, once the cause is gone.
const SETTLING: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);
/// Looks before it is believed that nothing fails.
const FIRST_LOOKS: usize = 4;
/// Repairs in one run: each may uncover the next cause.
const MOST_REPAIRS: usize = 20;

/// What a person agreed to beforehand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Consent {
    /// To everything.
    pub(super) yes: bool,
    /// To nothing: it is only shown.
    pub(super) dry_run: bool,
}

/// The machine's records, which are root's; those of a person who only changes objects.
fn journal(host: &Host) -> Journal {
    if nix::unistd::geteuid().is_root() {
        return Journal::of(host);
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").unwrap_or_default().join(".local/state");
    Journal::in_directory(variable("XDG_STATE_HOME").unwrap_or_else(home).join("kedge/repairs"))
}

/// Who is wrong and how: the same cause before and after.
type Key = (String, String);

fn key(cause: &Cause) -> Key {
    (cause.id.to_owned(), cause.subject.to_string())
}

fn failures(diagnosis: &Diagnosis) -> BTreeSet<Key> {
    diagnosis.causes.iter().filter(|cause| cause.severity == Severity::Failure).map(key).collect()
}

/// Mends what can be mended, one cause after the other, and returns the last diagnosis.
pub(super) async fn mend<F: Future<Output = Diagnosis>>(
    host: &Host,
    look: impl Fn() -> F,
    consent: Consent,
) -> Result<Diagnosis> {
    let mut diagnosis = first_look(&look).await;
    let mut tried: BTreeSet<Key> = BTreeSet::new();
    for _ in 0..MOST_REPAIRS {
        let Some((cause, plan)) = next(&diagnosis, host, &mut tried) else { break };
        show(&cause, &plan);
        if consent.dry_run || !is_agreed(consent)? {
            continue;
        }
        let path = journal(host).make(&plan, host, Timestamp::now())?;
        println!("   done; undo it with: kedge doctor undo");
        diagnosis = verify(&look, &diagnosis, &cause, host, &path).await?;
    }
    Ok(diagnosis)
}

/// Looks until something fails, a few times: between two runs of a container that crashes again and again, the runtime
/// knows neither.
async fn first_look<F: Future<Output = Diagnosis>>(look: &impl Fn() -> F) -> Diagnosis {
    let mut diagnosis = look().await;
    for _ in 1..FIRST_LOOKS {
        if !failures(&diagnosis).is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        diagnosis = look().await;
    }
    diagnosis
}

/// The first cause that a program can mend and that was not tried yet.
fn next(diagnosis: &Diagnosis, host: &Host, tried: &mut BTreeSet<Key>) -> Option<(Cause, Plan)> {
    for cause in &diagnosis.causes {
        if !tried.insert(key(cause)) {
            continue;
        }
        match plan_repair(cause, host) {
            Ok(Some(plan)) => return Some((cause.clone(), plan)),
            Ok(None) => println!("{} ({}): this is for people: see what to do below", cause.title, cause.id),
            Err(why) => println!("{} ({}): {why}", cause.title, cause.id),
        }
    }
    None
}

fn show(cause: &Cause, plan: &Plan) {
    println!("\n{} [{}]\n   {}", cause.title, cause.id, cause.text);
    for step in &plan.steps {
        println!("   - {}", step.text);
        for line in step.preview.lines() {
            println!("       {line}");
        }
    }
}

fn is_agreed(consent: Consent) -> Result<bool> {
    if consent.yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked whether to do this: say --yes, or look at it first with --dry-run");
    }
    print!("   Do this? [y/N] ");
    std::io::stdout().flush().context("standard output")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("standard input")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Looks until the cause is gone, and nothing new fails or is hidden. What got worse beside the cause is taken back.
async fn verify<F: Future<Output = Diagnosis>>(
    look: &impl Fn() -> F,
    before: &Diagnosis,
    cause: &Cause,
    host: &Host,
    record: &std::path::Path,
) -> Result<Diagnosis> {
    let start = Instant::now();
    loop {
        let after = look().await;
        let elapsed = start.elapsed();
        let new: Vec<Key> = failures(&after).difference(&failures(before)).cloned().collect();
        let is_gone = !after.causes.iter().any(|left| key(left) == key(cause));
        let hidden = hidden(before, &after);
        // What the cause hid shows as new once it is gone: only beside the cause itself is it worse.
        if is_gone && (elapsed >= SETTLING || (new.is_empty() && hidden.is_empty())) {
            println!("   mended: {} is gone after {}", cause.id, output::seconds(elapsed));
            if !hidden.is_empty() {
                println!("   but this can no longer be looked at: {}", hidden.join(", "));
            }
            return Ok(after);
        }
        if is_gone || elapsed < PATIENCE {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        if new.is_empty() {
            println!("   {} is still there after {}: the change stays", cause.id, output::seconds(PATIENCE));
            return Ok(after);
        }
        let names: Vec<String> = new.iter().map(|(id, subject)| format!("{id} {subject}")).collect();
        println!("   it got worse ({}): taken back", names.join(", "));
        undo_record(host, record)?;
        return Ok(look().await);
    }
}

/// What was looked at before, and could not be looked at now: a cause that is not seen there may still be there.
fn hidden(before: &Diagnosis, after: &Diagnosis) -> Vec<String> {
    let was_unseen = |what: &str| before.not_seen.iter().any(|unseen| unseen.what == what);
    after.not_seen.iter().map(|unseen| unseen.what.clone()).filter(|what| !was_unseen(what)).collect()
}

fn undo_record(host: &Host, path: &std::path::Path) -> Result<()> {
    let journal = journal(host);
    let found = journal.records().into_iter().find(|(other, _)| other == path);
    let (path, mut record) = found.context("the record of the repair is gone")?;
    Ok(journal.undo(&path, &mut record, host)?)
}

/// `kedge doctor undo`: the last repair that stands, or a list of all.
pub(super) fn undo(host: &Host, flags: &DoctorUndoFlags, yes: bool) -> Result<ExitCode> {
    let journal = journal(host);
    let records = journal.records();
    if flags.list {
        let row = |(_, record): &(_, kedge_repair::Record)| {
            let state = match record.state {
                RecordState::Begun => "cut short",
                RecordState::Made => "made",
                RecordState::Undone => "undone",
            };
            vec![record.time.to_string(), record.id.clone(), state.to_owned(), record.title.clone()]
        };
        let head = ["TIME", "CAUSE", "STATE", "TITLE"].map(str::to_owned).to_vec();
        print!("{}", output::table(&std::iter::once(head).chain(records.iter().map(row)).collect::<Vec<_>>()));
        return Ok(ExitCode::SUCCESS);
    }
    let Some((path, mut record)) = records.into_iter().find(|(_, record)| record.state != RecordState::Undone) else {
        bail!("there is no repair to undo");
    };
    println!("{} [{}], made {}", record.title, record.id, record.time);
    for line in record.steps.iter().flat_map(|step| step.lines()) {
        println!("   {line}");
    }
    if !is_agreed(Consent { yes, dry_run: false })? {
        return Ok(ExitCode::SUCCESS);
    }
    journal.undo(&path, &mut record, host)?;
    println!("   undone");
    Ok(ExitCode::SUCCESS)
}
