//! What was typed and printed, step by step, and whether each line that the note quotes is among it.

use std::fs::File;
use std::io::Write as _;

use kedge_e2e::{Machine, Output};

/// A line of the note.
pub struct Quote {
    /// The step in which it must show.
    pub step: &'static str,
    /// The line, with `*` for names and numbers of the note's own.
    pub line: &'static str,
    /// What stands for it where the version, or Kedge, says it otherwise.
    pub today: Option<&'static str>,
}

/// A line that is printed as the note has it.
pub const fn same(step: &'static str, line: &'static str) -> Quote {
    Quote { step, line, today: None }
}

/// A line that is printed otherwise.
pub const fn other(step: &'static str, line: &'static str, today: &'static str) -> Quote {
    Quote { step, line, today: Some(today) }
}

/// Everything that was printed, by step.
#[derive(Default)]
pub struct Transcript {
    said: Vec<(&'static str, String)>,
}

impl Transcript {
    /// Runs a script on a machine, and keeps what it printed.
    pub fn try_run(&mut self, step: &'static str, machine: &Machine, script: &str) -> Output {
        let output = machine.try_sh(&format!("{{ {script}\n}} 2>&1"));
        self.keep(step, machine, script, &output);
        output
    }

    /// The same for one that must succeed.
    pub fn run(&mut self, step: &'static str, machine: &Machine, script: &str) -> String {
        let output = self.try_run(step, machine, script);
        assert!(output.ok, "{step}: on {}, {script:?} failed:\n{}", machine.name(), output.all());
        output.stdout
    }

    /// Keeps what was printed elsewhere, and adds it to the file that `KEDGE_TRANSCRIPT` names.
    pub fn keep(&mut self, step: &'static str, machine: &Machine, script: &str, output: &Output) {
        let script = script.replace("$KEDGE", "kedge");
        let text = format!("[root@{} ~]# {script}\n{}\n", machine.name(), output.all());
        if let Some(file) = std::env::var_os("KEDGE_TRANSCRIPT") {
            let mut file = File::options().create(true).append(true).open(file).expect("the transcript can be written");
            write!(file, "===== {step}\n{text}").expect("the transcript can be written");
        }
        self.said.push((step, text));
    }

    /// Every quote that no step printed.
    pub fn missing(&self, quotes: &[Quote]) -> String {
        let mut missing = Vec::new();
        for quote in quotes {
            let pattern = quote.today.unwrap_or(quote.line);
            let lines = self.said.iter().filter(|(step, _)| *step == quote.step).flat_map(|(_, text)| text.lines());
            if !lines.map(squeezed).any(|line| is_like(&line, &squeezed(pattern))) {
                missing.push(format!("{}: {pattern} (in the note: {})", quote.step, quote.line));
            }
        }
        missing.join("\n")
    }
}

/// With one space between words: columns are as wide as what is in them.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the parts between the stars are in the line, one after the other.
fn is_like(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    pattern.split('*').all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}
