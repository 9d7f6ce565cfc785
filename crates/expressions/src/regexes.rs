//! Functions of texts and patterns: `find` and `findAll`.

use cel::common::types;
use cel::common::types::CelInt;
use cel::common::value::CowVal;
use cel::{DeclarationError, Env, ExecutionError};

use crate::call::{self, Args, Outcome, failed, text_at};
use crate::pattern::compile_pattern;

/// What a pattern matches in a text.
fn matches(args: &[CowVal<'_, '_>], most: usize) -> Result<Vec<String>, ExecutionError> {
    let regex = compile_pattern(text_at(args, 1, "find")?).map_err(|error| failed("find", error))?;
    let found = regex.find_iter(text_at(args, 0, "find")?).take(most);
    Ok(found.map(|found| found.as_str().to_owned()).collect())
}

fn find<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(matches(&args, 1)?.into_iter().next().unwrap_or_default())
}

fn find_all<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let most = match args.get(2).and_then(|limit| limit.downcast_ref::<CelInt>()).map(|limit| *limit.inner()) {
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    Ok(CowVal::owned(call::texts(matches(&args, most)?)))
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let pattern = || vec![types::STRING_TYPE];
    let limited = vec![types::STRING_TYPE, types::INT_TYPE];
    env.add_member_overload("find", "string_find_string", types::STRING_TYPE, pattern(), find)?;
    env.add_member_overload("findAll", "string_find_all_string", types::STRING_TYPE, pattern(), find_all)?;
    env.add_member_overload("findAll", "string_find_all_string_int", types::STRING_TYPE, limited, find_all)
}
