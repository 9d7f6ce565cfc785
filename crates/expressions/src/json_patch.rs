//! `jsonpatch.escapeKey`: a key as a JSON pointer has it.

use cel::common::types;
use cel::{DeclarationError, Env};

use crate::call::{self, Args, Outcome, text_at};

fn escape_key<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(text_at(&args, 0, "jsonpatch.escapeKey")?.replace('~', "~0").replace('/', "~1"))
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload("jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string", vec![types::STRING_TYPE], escape_key)
}
