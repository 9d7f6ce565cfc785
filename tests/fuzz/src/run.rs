//! Runs one target: the corpus first, then changed inputs until the time is up.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::memory::peak_bytes;
use crate::mutate::Mutator;
use crate::targets::Target;

/// An input that takes longer hangs. Debug builds on busy machines need some of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// No target needs as much.
const MEMORY: u64 = 1 << 30;

/// How many inputs are kept for further changes.
const KEPT: usize = 4000;

/// What came of a run.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// Inputs that were tried.
    pub inputs: u64,
    /// Different outcomes.
    pub outcomes: usize,
}

/// An input that does harm.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What it does.
    pub harm: String,
    /// Where it is.
    pub file: PathBuf,
}

/// Runs a target for a time. `corpus` holds one folder for each target; what does harm is written to `findings`.
pub fn run(
    target: &Target,
    corpus: &Path,
    findings: &Path,
    time: Duration,
    seed: u64,
) -> anyhow::Result<Result<Summary, Finding>> {
    std::fs::create_dir_all(findings)?;
    let trial = Trial::new(target, findings)?;
    let result = trial.go(corpus, time, seed);
    trial.watch.done.store(true, Ordering::Relaxed);
    result
}

struct Trial<'t> {
    target: &'t Target,
    file: PathBuf,
    watch: Arc<Watch>,
}

/// What the thread that looks for hangs knows.
#[derive(Default)]
struct Watch {
    input: AtomicU64,
    done: AtomicBool,
}

impl<'t> Trial<'t> {
    fn new(target: &'t Target, findings: &Path) -> anyhow::Result<Self> {
        let file = findings.join(format!("{}-{}", target.name, std::process::id()));
        let watch = Arc::new(Watch::default());
        let (watched, name) = (Arc::clone(&watch), target.name);
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || look(&watched, name))?;
        Ok(Self { target, file, watch })
    }

    fn go(&self, corpus: &Path, time: Duration, seed: u64) -> anyhow::Result<Result<Summary, Finding>> {
        let mut kept = saved(&corpus.join(self.target.name))?;
        kept.extend((self.target.seeds)());
        let mut last = File::create(&self.file).with_context(|| format!("{} cannot be made", self.file.display()))?;
        let mut outcomes = HashSet::new();
        for input in &kept {
            match self.attempt(input, &mut last)? {
                Ok(outcome) => drop(outcomes.insert(outcome)),
                Err(finding) => return Ok(Err(finding)),
            }
        }
        let mut mutator = Mutator::new(seed, self.target.words);
        let end = Instant::now() + time;
        let mut inputs = kept.len() as u64;
        while Instant::now() < end {
            let (one, other) = (mutator.pick(kept.len()), mutator.pick(kept.len()));
            let input = mutator.change(&kept[one], &kept[other]);
            inputs += 1;
            match self.attempt(&input, &mut last)? {
                Ok(outcome) if outcomes.insert(outcome) && kept.len() < KEPT => kept.push(input),
                Ok(_) => {}
                Err(finding) => return Ok(Err(finding)),
            }
            if inputs.is_multiple_of(256) && peak_bytes() > MEMORY {
                return Ok(Err(self.finding(format!("more than {MEMORY} bytes of memory"))));
            }
        }
        let _ = std::fs::remove_file(&self.file);
        Ok(Ok(Summary { inputs, outcomes: outcomes.len() }))
    }

    /// The input is in the file before it is tried: nothing else is left where the process ends with it.
    fn attempt(&self, input: &[u8], last: &mut File) -> anyhow::Result<Result<u64, Finding>> {
        last.rewind()?;
        last.write_all(input)?;
        last.set_len(input.len() as u64)?;
        self.watch.input.fetch_add(1, Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        Ok(outcome.map_err(|_| self.finding("a panic".to_owned())))
    }

    fn finding(&self, harm: String) -> Finding {
        Finding { harm, file: self.file.clone() }
    }
}

/// Ends the process where one input takes too long.
fn look(watch: &Watch, name: &str) {
    let mut seen = (0, Instant::now());
    while !watch.done.load(Ordering::Relaxed) {
        std::thread::park_timeout(Duration::from_millis(200));
        let input = watch.input.load(Ordering::Relaxed);
        if input != seen.0 {
            seen = (input, Instant::now());
        }
        if seen.1.elapsed() > PATIENCE && !watch.done.load(Ordering::Relaxed) {
            let _ = writeln!(std::io::stderr(), "{name}: input {input} hangs; it is the last file among the findings");
            std::process::abort();
        }
    }
}

/// The files of a folder, by name.
fn saved(folder: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("there is no corpus in {}", folder.display()))?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).with_context(|| path.display().to_string())).collect()
}
