//! A diagnosis as people and programs read it: text for a terminal, Markdown, HTML, JSON, YAML, SARIF, JUnit.
//!
//! Pure. Invariant: every form has every cause, its evidence with where that was read, and what was not seen; what is
//! quoted stays in the language it was written in.

mod html;
mod junit;
mod korean;
mod language;
mod markdown;
mod sarif;
mod terminal;
mod titles;

use kedge_diagnosis::Diagnosis;

pub use language::Language;

/// In what form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For a terminal; with colours, if wanted.
    Text {
        /// Whether it understands escapes of ANSI.
        colour: bool,
    },
    /// The diagnosis itself.
    Json,
    /// The same as YAML.
    Yaml,
    /// For issues and chats.
    Markdown,
    /// SARIF 2.1.0, which code hosts show beside the code.
    Sarif,
    /// JUnit's XML, which CI systems show: a test for each rule.
    Junit,
    /// One file for a browser, with a timeline; it loads nothing.
    Html,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// JSON.
    #[error("the diagnosis has no form in JSON")]
    Json(#[from] serde_json::Error),
    /// YAML.
    #[error("the diagnosis has no form in YAML")]
    Yaml(#[from] serde_yaml::Error),
}

/// The report.
pub fn render(diagnosis: &Diagnosis, form: Form, language: Language) -> Result<String, ReportError> {
    Ok(match form {
        Form::Text { colour } => terminal::render(diagnosis, language, colour),
        Form::Json => serde_json::to_string_pretty(diagnosis)? + "\n",
        Form::Yaml => serde_yaml::to_string(diagnosis)?,
        Form::Markdown => markdown::render(diagnosis, language),
        Form::Sarif => serde_json::to_string_pretty(&sarif::log(diagnosis))? + "\n",
        Form::Junit => junit::render(diagnosis),
        Form::Html => html::render(diagnosis, language),
    })
}
