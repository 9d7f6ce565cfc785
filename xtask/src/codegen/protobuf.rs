//! Reads the facts about upstream's protobuf messages (`xtask/facts/protobuf.txt`) and ties them to the OpenAPI types.
//!
//! The file says which number a field has; the OpenAPI document says which type. The invariant: a message whose fields do
//! not fit the OpenAPI type stops the generator, so that the tables never name a field that is not there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::openapi::{FieldType, Type};

/// Messages by OpenAPI name.
pub(super) type Messages = BTreeMap<String, Vec<Field>>;

/// One numbered field.
#[derive(Debug)]
pub(super) struct Field {
    number: u16,
    /// JSON name; `None` where the message's fields stand among those of the outer type.
    name: Option<String>,
    ty: String,
    label: Label,
    omitempty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Label {
    Single,
    Repeated,
    Map,
}

/// Reads the file of facts.
pub(super) fn read(path: &Path) -> Result<Messages> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut messages = Messages::new();
    let mut current: Option<String> = None;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            let message = current.as_ref().context("a field before the first message")?;
            let field = read_field(line, message).with_context(|| format!("in line {}", index + 1))?;
            messages.entry(message.clone()).or_default().push(field);
        } else {
            messages.insert(line.to_owned(), Vec::new());
            current = Some(line.to_owned());
        }
    }
    for fields in messages.values_mut() {
        fields.sort_by_key(|field| field.number);
    }
    Ok(messages)
}

fn read_field(line: &str, message: &str) -> Result<Field> {
    let mut words = line.split(' ');
    let (Some(number), Some(name), Some(ty)) = (words.next(), words.next(), words.next()) else {
        bail!("number, name and type are expected");
    };
    let is_scalar = matches!(ty, "string" | "bytes" | "bool" | "int32" | "int64" | "double");
    let package = message.rsplit_once('.').map_or("", |(package, _)| package);
    let mut field = Field {
        number: number.parse()?,
        name: (name != "-").then(|| name.to_owned()),
        ty: if is_scalar || ty.contains('.') { ty.to_owned() } else { format!("{package}.{ty}") },
        label: Label::Single,
        omitempty: false,
    };
    for flag in words {
        match flag {
            "repeated" => field.label = Label::Repeated,
            "map" => field.label = Label::Map,
            "omitempty" => field.omitempty = true,
            "inline" if field.name.is_none() => {}
            _ => bail!("unknown flag {flag}"),
        }
    }
    Ok(field)
}

/// The slots of a type as Rust; `None` where upstream has no such message.
pub(super) fn render(ty: &Type, messages: &Messages) -> Result<Option<String>> {
    let Some(message) = messages.get(&ty.name) else { return Ok(None) };
    let mut out = String::from("&[\n");
    render_slots(&mut out, 2, message, ty, messages).with_context(|| format!("in the message of {}", ty.name))?;
    out.push_str("    ]");
    Ok(Some(out))
}

fn render_slots(out: &mut String, depth: usize, message: &[Field], ty: &Type, messages: &Messages) -> Result<()> {
    let indent = "    ".repeat(depth);
    for field in message {
        let number = field.number;
        let Some(name) = &field.name else {
            let inner = messages.get(&field.ty).with_context(|| format!("no message {}", field.ty))?;
            let _ = writeln!(out, "{indent}Slot::inline({number}, &[");
            render_slots(out, depth + 1, inner, ty, messages)?;
            let _ = writeln!(out, "{indent}]),");
            continue;
        };
        let index = ty.fields.keys().position(|key| key == name).with_context(|| format!("no field {name}"))?;
        let fact = &ty.fields[name].ty;
        let constructor = constructor_of(field, fact)
            .with_context(|| format!("field {name} is {} {:?}, but {fact:?}", field.ty, field.label))?;
        let _ = writeln!(out, "{indent}Slot::{constructor}({number}, {index}), // {name}");
    }
    Ok(())
}

/// The constructor for the slot, if the two types are one.
fn constructor_of(field: &Field, fact: &FieldType) -> Option<&'static str> {
    let fits = match (field.label, fact) {
        (Label::Single, FieldType::List(items)) => {
            // A named Go slice that may be nil is a message of its own, with the items as field 1.
            let is_list_message = matches!(field.ty.rsplit('.').next(), Some("Verbs" | "ExtraValue"));
            return (is_list_message && fits(items, "string")).then_some("wrapped");
        }
        (Label::Single, fact) => fits(fact, &field.ty),
        (Label::Repeated, FieldType::List(items)) => fits(items, &field.ty),
        (Label::Map, FieldType::Map(values)) => match &**values {
            FieldType::List(items) => field.ty.ends_with(".ExtraValue") && fits(items, "string"),
            values => fits(values, &field.ty),
        },
        _ => false,
    };
    fits.then_some(if field.omitempty { "omitempty" } else { "field" })
}

fn fits(fact: &FieldType, ty: &str) -> bool {
    match fact {
        FieldType::Scalar(scalar) => match *scalar {
            "Boolean" => ty == "bool",
            "Int32" => ty == "int32",
            "Int64" => ty == "int64",
            "Double" => ty == "double",
            "String" => ty == "string",
            "Bytes" => ty == "bytes",
            special => ty.rsplit('.').next() == Some(special) && ty.starts_with("io.k8s.apimachinery."),
        },
        FieldType::Json(name) | FieldType::Object(name) => name == ty,
        FieldType::List(_) | FieldType::Map(_) => false,
    }
}
