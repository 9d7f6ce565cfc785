//! Named formats: `format.dns1123Label()` and its like, `format.named`, `validate`.

use base64::Engine;
use cel::common::functions::Function;
use cel::common::types;
use cel::common::types::CelOptional;
use cel::common::value::CowVal;
use cel::{DeclarationError, Env};
use kedge_meta::formats::{label, label_1035, label_value, qualified_name, subdomain};

use crate::call::{self, Args, Outcome, text_at, value_at, value_type};
use crate::urls::uri_error;

/// A format as a value, by its name.
#[derive(Debug, Clone, Copy)]
struct FormatVal(&'static str);

value_type!(TYPE: FormatVal, "kubernetes.NamedFormat", |one, other| one.0 == other.0);

/// Whether a text has one of the formats that schemas of custom resources name too; the name comes without dashes.
/// Absent where it is none of them.
pub fn fits_format(format: &str, text: &str) -> Option<bool> {
    Some(match format {
        "uri" => uri_error(text).is_none(),
        "uuid" => is_uuid(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "datetime" => kedge_meta::parse_time(text).is_some(),
        _ => return None,
    })
}

fn is_uuid(text: &str) -> bool {
    let group = |rest: &str, length: usize| {
        let (digits, rest) = rest.split_at_checked(length)?;
        let rest = rest.strip_prefix('-').unwrap_or(rest).to_owned();
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(rest)
    };
    let rest = [8, 4, 4, 4].into_iter().try_fold(text.to_owned(), |rest, length| group(&rest, length));
    rest.is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// A prefix as upstream looks at it: a dash at its end, and what is before it, stand for anything.
fn completed(prefix: &str) -> String {
    let mut letters: Vec<char> = prefix.chars().collect();
    if letters.len() > 1 && letters.ends_with(&['-']) {
        letters.truncate(letters.len() - 2);
        letters.push('a');
    }
    letters.into_iter().collect()
}

/// What is wrong with a text.
fn wrong(format: &str, text: &str) -> Vec<String> {
    let unless = |fits: bool, why: &str| if fits { Vec::new() } else { vec![why.to_owned()] };
    let fits = || fits_format(format, text) == Some(true);
    match format {
        "dns1123Label" => label(text),
        "dns1123Subdomain" => subdomain(text),
        "dns1035Label" => label_1035(text),
        "qualifiedName" => qualified_name(text),
        "labelValue" => label_value(text),
        "dns1123LabelPrefix" => label(&completed(text)),
        "dns1123SubdomainPrefix" => subdomain(&completed(text)),
        "dns1035LabelPrefix" => label_1035(&completed(text)),
        "uri" => uri_error(text).into_iter().collect(),
        "uuid" => unless(fits(), "does not match the UUID format"),
        "byte" => unless(fits(), "invalid base64"),
        "date" => unless(fits(), "invalid date"),
        _ => unless(fits(), "invalid datetime"),
    }
}

fn named<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let name = text_at(&args, 0, "format.named")?;
    let known = FORMATS.iter().find(|(known, _)| *known == name);
    let found = known.map_or_else(CelOptional::none, |(name, _)| CelOptional::of(Box::new(FormatVal(name))));
    Ok(CowVal::owned(found))
}

fn validate<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let format = value_at::<FormatVal>(&args, 0, "validate")?.0;
    let wrong = wrong(format, text_at(&args, 1, "validate")?);
    let found = if wrong.is_empty() { CelOptional::none() } else { CelOptional::of(Box::new(call::texts(wrong))) };
    Ok(CowVal::owned(found))
}

/// A function that gives the format of a name: functions of CEL hold nothing, so each format needs its own.
macro_rules! formats {
    ($($name:literal),*) => {
        [$(($name, (|_| Ok(CowVal::owned(FormatVal($name)))) as Function)),*]
    };
}

const FORMATS: [(&str, Function); 13] = formats![
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime"
];

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_type(TYPE.to_owned())?;
    for (name, function) in FORMATS {
        env.add_overload(&format!("format.{name}"), &format!("format-{name}"), Vec::new(), function)?;
    }
    env.add_overload("format.named", "format-named", vec![types::STRING_TYPE], named)?;
    env.add_member_overload("validate", "format-validate", TYPE.to_owned(), vec![types::STRING_TYPE], validate)
}
