//! What people and machines see: progress while things start, panels and tables, error chains.

use std::io::{IsTerminal, Write};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kedge_supervisor::Progress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// An error with everything that caused it, one cause a line.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some libraries repeat the cause in their own text.
        if !text.contains(&cause) {
            text.push_str("\n  because: ");
            text.push_str(&cause);
        }
    }
    text
}

/// Shows steps with their times: spinners on a terminal, plain lines elsewhere, JSON lines for machines.
pub(crate) struct Steps {
    style: Style,
    open: Mutex<Vec<(&'static str, ProgressBar)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Terminal,
    Plain,
    Json,
}

impl Steps {
    pub(crate) fn new(json: bool) -> Self {
        let style = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Style::Json,
            (false, true) => Style::Terminal,
            (false, false) => Style::Plain,
        };
        Self { style, open: Mutex::default() }
    }

    /// Shows one piece of progress.
    pub(crate) fn show(&self, progress: Progress) {
        match self.style {
            Style::Terminal => self.spin(progress),
            Style::Plain => match progress {
                Progress::Started(_) => {}
                Progress::Done(step, time) => eprintln!("  ok    {step} ({})", seconds(time)),
                Progress::Failed(step) => eprintln!("  FAILED {step}"),
                Progress::Note(text) => eprintln!("  note  {text}"),
            },
            Style::Json => {
                let line = match progress {
                    Progress::Started(_) => return,
                    Progress::Done(step, time) => {
                        serde_json::json!({"step": step, "result": "ok", "milliseconds": time.as_millis() as u64})
                    }
                    Progress::Failed(step) => serde_json::json!({"step": step, "result": "failed"}),
                    Progress::Note(text) => serde_json::json!({"note": text}),
                };
                eprintln!("{line}");
            }
        }
    }

    fn spin(&self, progress: Progress) {
        let Ok(mut open) = self.open.lock() else { return };
        match progress {
            Progress::Started(step) => {
                let bar = BARS.add(ProgressBar::new_spinner());
                let template = ProgressStyle::with_template("  {spinner:.cyan} {msg} {elapsed:.dim}");
                bar.set_style(template.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.set_message(step);
                bar.enable_steady_tick(Duration::from_millis(80));
                open.push((step, bar));
            }
            Progress::Done(step, time) => close(&mut open, step, format!("\u{2713} {step} ({})", seconds(time))),
            Progress::Failed(step) => close(&mut open, step, format!("\u{2717} {step}")),
            Progress::Note(text) => {
                let _ = BARS.println(format!("  ! {text}"));
            }
        }
    }
}

fn close(open: &mut Vec<(&'static str, ProgressBar)>, step: &str, line: String) {
    if let Some(at) = open.iter().position(|(name, _)| *name == step) {
        let (_, bar) = open.remove(at);
        bar.set_style(ProgressStyle::with_template("  {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.finish_with_message(line);
    }
}

/// A duration for people: milliseconds below a second.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_millis() {
        milliseconds if milliseconds < 1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// Logs go to standard error, around the spinners. `KEDGE_LOG` filters them (`info`, `kedge_kubelet=debug`, ...).
pub(crate) fn start_logging(json: bool) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter("warn")).with_writer(|| AroundBars);
    // A second subscriber can only come from a second call, which has nothing to add.
    let _ = match json {
        true => {
            let builder = builder.json().with_filter_reloading();
            follow(builder.reload_handle());
            builder.try_init()
        }
        false => {
            let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_target(false);
            let builder = builder.with_filter_reloading();
            follow(builder.reload_handle());
            builder.try_init()
        }
    };
}

/// Lets whoever asks for it change how much is logged, also where `KEDGE_LOG` had said it.
fn follow<S: 'static>(log: Handle<EnvFilter, S>) {
    kedge_supervisor::on_verbosity(Box::new(move |v| {
        log.reload(quiet(level(v).to_owned(), "warn")).map_err(|error| error.to_string())
    }));
}

/// What the flag `-v` stands for.
pub(crate) fn level(v: u32) -> &'static str {
    match v {
        0 | 1 => "warn",
        2 | 3 => "info",
        _ => "debug",
    }
}

/// The log of a program in a container: plain lines to standard output, where `kubectl logs` finds them.
pub(crate) fn start_container_log() {
    let builder = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::stdout);
    // As above.
    let _ = builder.with_ansi(false).with_target(false).try_init();
}

/// Plain lines for a service, from `level` on where `KEDGE_LOG` says nothing.
pub(crate) fn start_logging_at(level: &str) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(level)).with_writer(std::io::stderr);
    let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).with_filter_reloading();
    follow(builder.reload_handle());
    // As above.
    let _ = builder.try_init();
}

fn filter(level: &str) -> EnvFilter {
    let asked = std::env::var("KEDGE_LOG").ok().filter(|asked| !asked.trim().is_empty());
    quiet(asked.unwrap_or_else(|| level.to_owned()), level)
}

/// The client library's own line for every failed connection is left out, unless somebody asks for it: the cause is
/// told once by those who use it.
fn quiet(asked: String, level: &str) -> EnvFilter {
    let quiet = if asked.contains("kube_client") { asked } else { format!("{asked},kube_client=off") };
    EnvFilter::try_new(quiet).unwrap_or_else(|_| EnvFilter::new(format!("{level},kube_client=off")))
}

struct AroundBars;

impl Write for AroundBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        BARS.suspend(|| std::io::stderr().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// A table with aligned columns.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}", width = widths[column]));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// Rows in columns as upstream's tools set them: each at least ten wide, three apart, the last as wide as it is.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| row.len() > column + 1).map(|row| row[column].chars().count());
        (cells.max().unwrap_or_default() + 3).max(10)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[column].saturating_sub(cell.chars().count())));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_chain_names_each_cause_once() {
        let root = anyhow::anyhow!("permission denied");
        let error =
            Err::<(), _>(root).context("cannot write x: permission denied").context("cannot start").unwrap_err();
        assert_eq!(chain(&error), "cannot start\n  because: cannot write x: permission denied");
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["NAME".to_owned(), "STATE".to_owned()], vec!["kubelet".to_owned(), "Running".to_owned()]];
        assert_eq!(table(&rows), "NAME      STATE\nkubelet   Running\n");
    }
}
