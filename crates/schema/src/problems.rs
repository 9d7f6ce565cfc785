//! What is wrong with a document, in the words of upstream's decoder.
//!
//! A [`Path`] lives on the stack and costs nothing until something is wrong. The invariant of [`Problems`]: the first type
//! error counts and hides all strictness errors; strictness errors are unique and at most 100.

use kedge_meta::{ApiStatus, StatusReason};

use crate::schema::Schema;

const MAX_STRICT_ERRORS: usize = 100;

/// How much the client wants to hear about unknown and duplicate fields (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped silently.
    Ignore,
    /// They are dropped, and each is a warning.
    Warn,
    /// They are an error.
    Strict,
}

impl FieldValidation {
    /// The value of the `fieldValidation` parameter; `None` where upstream refuses it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// Why a document could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is no JSON or YAML.
    #[error("{0}")]
    Syntax(String),
    /// A value has another type than its field.
    #[error("{0}")]
    Type(String),
    /// It has unknown or duplicate fields, and the client asked for none.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

impl DecodeError {
    /// The 400 answer to a body of this kind.
    pub fn bad_request(&self, kind: &str, version: &str) -> ApiStatus {
        let text = format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {self}");
        ApiStatus::new(400, StatusReason::BadRequest, text)
    }

    /// The 400 answer to a body of which not even the kind could be read.
    pub fn unrecognized(&self, kind: &str, body: &[u8]) -> ApiStatus {
        let text =
            format!("the object provided is unrecognized (must be of type {kind}): {self} ({})", summary(body, 30));
        ApiStatus::new(400, StatusReason::BadRequest, text)
    }
}

/// The start of a body as upstream prints it: text for a JSON object, hex for the rest.
fn summary(body: &[u8], limit: usize) -> String {
    use std::fmt::Write;
    match body {
        [] => "<empty>".to_owned(),
        [b'{', ..] => {
            let cut = body.get(..limit).unwrap_or(body);
            let dots = if body.len() > limit { " ..." } else { "" };
            format!("{}{dots}", String::from_utf8_lossy(cut))
        }
        _ => {
            let cut = body.get(..limit).unwrap_or(body);
            let mut hex = String::new();
            for byte in cut {
                let _ = write!(hex, "{byte:02x}");
            }
            if body.len() > limit { hex + " ..." } else { hex }
        }
    }
}

/// A position in a document, linked through the stack of the walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'p> {
    Root,
    Field { name: &'p str, go_struct: &'static str },
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub(crate) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    /// A field of a known structure.
    pub(crate) fn field(&'p self, name: &'p str, go_struct: &'static str) -> Path<'p> {
        Path { parent: Some(self), step: Step::Field { name, go_struct } }
    }

    /// An entry of a map.
    pub(crate) fn key(&'p self, key: &'p str) -> Path<'p> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    /// A list item.
    pub(crate) fn index(&'p self, index: usize) -> Path<'p> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// As strictness errors print it: `spec.containers[0].name`.
    fn strict(&self, leaf: &str) -> String {
        let mut text = String::new();
        self.write_strict(&mut text);
        if !text.is_empty() {
            text.push('.');
        }
        text + leaf
    }

    fn write_strict(&self, text: &mut String) {
        use std::fmt::Write;
        if let Some(parent) = self.parent {
            parent.write_strict(text);
        }
        match self.step {
            Step::Root => {}
            Step::Field { name, .. } | Step::Key(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Step::Index(index) => {
                let _ = write!(text, "[{index}]");
            }
        }
    }

    /// As type errors print it: the innermost struct and the field names from the root.
    fn go_field(&self) -> Option<(&'static str, String)> {
        let mut names = Vec::new();
        let mut innermost = None;
        let mut at = Some(self);
        while let Some(path) = at {
            if let Step::Field { name, go_struct } = path.step {
                names.push(name);
                innermost = innermost.or(Some(go_struct));
            }
            at = path.parent;
        }
        names.reverse();
        Some((innermost?, names.join(".")))
    }
}

/// Collects what is wrong during one walk.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    fatal: Option<String>,
    strict: Vec<String>,
}

impl Problems {
    /// A field that the type does not have.
    pub(crate) fn unknown(&mut self, path: &Path<'_>, name: &str) {
        self.add("unknown", path, name);
    }

    /// A field that stands twice.
    pub(crate) fn duplicate(&mut self, path: &Path<'_>, name: &str) {
        self.add("duplicate", path, name);
    }

    fn add(&mut self, what: &str, path: &Path<'_>, name: &str) {
        if self.strict.len() >= MAX_STRICT_ERRORS {
            return;
        }
        let text = format!("{what} field {}", quote(&path.strict(name)));
        if !self.strict.contains(&text) {
            self.strict.push(text);
        }
    }

    /// A value of the wrong type; `found` as Go describes it (`string`, `number 1.5`, `object`).
    pub(crate) fn mismatch(&mut self, path: &Path<'_>, found: &str, schema: Schema<'_>) {
        if self.fatal.is_some() {
            return;
        }
        let wanted = schema.go_type();
        self.fatal = Some(match path.go_field() {
            Some((go_struct, field)) => {
                format!("json: cannot unmarshal {found} into Go struct field {go_struct}.{field} of type {wanted}")
            }
            None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
        });
    }

    /// Any other error of a value.
    pub(crate) fn fatal(&mut self, text: String) {
        self.fatal.get_or_insert(text);
    }

    /// The warnings, or the error that the mode makes of what was found.
    pub(crate) fn finish(self, mode: FieldValidation) -> Result<Vec<String>, DecodeError> {
        if let Some(text) = self.fatal {
            return Err(DecodeError::Type(text));
        }
        match mode {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Warn => Ok(self.strict),
            FieldValidation::Strict if self.strict.is_empty() => Ok(Vec::new()),
            FieldValidation::Strict => Err(DecodeError::Strict(self.strict)),
        }
    }
}

/// As Go's `strconv.Quote`, for the characters that field names have.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
