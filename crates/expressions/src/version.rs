//! Kubernetes' `semver` type for CEL.

use std::cmp::Ordering;

use cel::common::types::{self, CelBool};
use cel::common::value::CowVal;
use cel::{DeclarationError, Env, ExecutionError};
use semver::Version;

use crate::call::{Args, Outcome, failed, number, text_at, truth, value_at, value_type};
use crate::ordered::{self, Ordered};

/// A semantic version as a value.
#[derive(Debug, Clone)]
pub struct VersionVal(pub Version);

value_type!(TYPE: VersionVal, "kubernetes.Semver", |one, other| one.0.cmp_precedence(&other.0).is_eq());

fn version_at<'a>(args: &'a [CowVal<'_, '_>], index: usize) -> Result<&'a Version, ExecutionError> {
    value_at::<VersionVal>(args, index, "semver").map(|value| &value.0)
}

/// Fills in what a loosely written version lacks: `v1.02` is `1.2.0`.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let trim = |number: &str| match number.trim_start_matches('0') {
        "" if !number.is_empty() => "0".to_owned(),
        trimmed => trimmed.to_owned(),
    };
    let mut parts: Vec<String> = numbers.split('.').map(trim).collect();
    while parts.len() < 3 {
        parts.push("0".to_owned());
    }
    format!("{}{rest}", parts.join("."))
}

fn parsed(args: &[CowVal<'_, '_>]) -> Result<Version, ExecutionError> {
    let text = text_at(args, 0, "semver")?;
    let loosely = args.get(1).and_then(|value| value.downcast_ref::<CelBool>()).is_some_and(|loosely| *loosely.inner());
    let text = if loosely { normalized(text) } else { text.to_owned() };
    Version::parse(&text).map_err(|error| failed("semver", error))
}

fn version<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(VersionVal(parsed(&args)?)))
}

fn is_version<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(parsed(&args).is_ok())
}

impl Ordered for VersionVal {
    fn compared(args: &[CowVal<'_, '_>]) -> Result<Ordering, ExecutionError> {
        Ok(version_at(args, 0)?.cmp_precedence(version_at(args, 1)?))
    }
}

fn part<'b, 'v>(part: u64) -> Outcome<'b, 'v> {
    number(i64::try_from(part).map_err(|error| failed("semver", error))?)
}

fn major<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    part(version_at(&args, 0)?.major)
}

fn minor<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    part(version_at(&args, 0)?.minor)
}

fn patch<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    part(version_at(&args, 0)?.patch)
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let text = || vec![types::STRING_TYPE];
    let loose = || vec![types::STRING_TYPE, types::BOOL_TYPE];
    env.add_type(TYPE.to_owned())?;
    ordered::declare::<VersionVal>(env, "semver", &TYPE)?;
    env.add_overload("semver", "string_to_semver", text(), version)?;
    env.add_overload("semver", "string_bool_to_semver", loose(), version)?;
    env.add_overload("isSemver", "is_semver_string", text(), is_version)?;
    env.add_overload("isSemver", "is_semver_string_bool", loose(), is_version)?;
    let mut member =
        |name: &str, id: &str, function| env.add_member_overload(name, id, TYPE.to_owned(), Vec::new(), function);
    member("major", "semver_major", major)?;
    member("minor", "semver_minor", minor)?;
    member("patch", "semver_patch", patch)
}
