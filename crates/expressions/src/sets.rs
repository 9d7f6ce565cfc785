//! Lists taken as sets: `sets.contains`, `sets.equivalents`, `sets.intersects`.

use cel::common::types;
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use crate::call::{Args, Outcome, elements, truth};

type Elements<'v> = Vec<Box<dyn Val + 'v>>;

fn both<'v>(args: &[CowVal<'_, 'v>], function: &str) -> Result<(Elements<'v>, Elements<'v>), ExecutionError> {
    Ok((elements(args, 0, function)?, elements(args, 1, function)?))
}

fn holds(set: &[Box<dyn Val + '_>], wanted: &dyn Val) -> bool {
    set.iter().any(|item| item.equals(wanted))
}

fn holds_all(set: &[Box<dyn Val + '_>], wanted: &[Box<dyn Val + '_>]) -> bool {
    wanted.iter().all(|item| holds(set, &**item))
}

fn contains<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let (set, wanted) = both(&args, "sets.contains")?;
    truth(holds_all(&set, &wanted))
}

fn equivalent<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let (one, other) = both(&args, "sets.equivalent")?;
    truth(holds_all(&one, &other) && holds_all(&other, &one))
}

fn intersects<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let (one, other) = both(&args, "sets.intersects")?;
    truth(other.iter().any(|item| holds(&one, &**item)))
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let lists = || vec![types::LIST_TYPE, types::LIST_TYPE];
    env.add_overload("sets.contains", "list_sets_contains_list", lists(), contains)?;
    env.add_overload("sets.equivalent", "list_sets_equivalent_list", lists(), equivalent)?;
    env.add_overload("sets.intersects", "list_sets_intersects_list", lists(), intersects)
}
