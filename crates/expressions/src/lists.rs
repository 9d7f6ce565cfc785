//! Functions of lists: `isSorted`, `sum`, `min`, `max`, `indexOf`, `lastIndexOf`.

use std::cmp::Ordering;

use cel::common::types;
use cel::common::types::CelInt;
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use crate::call::{Args, Outcome, elements, failed, number, truth};

fn compare(a: &dyn Val, b: &dyn Val) -> Result<Ordering, ExecutionError> {
    let comparer = a.as_comparer().ok_or_else(|| failed("compare", "no such overload"))?;
    comparer.compare(b)
}

fn is_sorted<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let all = elements(&args, 0, "isSorted")?;
    for pair in all.windows(2) {
        if compare(&*pair[0], &*pair[1])?.is_gt() {
            return truth(false);
        }
    }
    truth(true)
}

fn sum<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let mut all = elements(&args, 0, "sum")?.into_iter();
    let Some(mut total) = all.next() else { return Ok(CowVal::owned(CelInt::from(0))) };
    for item in all {
        let next = {
            let adder = total.as_adder().ok_or_else(|| failed("sum", "no such overload"))?;
            adder.add(&*item)?.into_owned()
        };
        total = next;
    }
    Ok(CowVal::Owned(total))
}

fn extreme<'b, 'v>(args: &[CowVal<'b, 'v>], name: &str, wanted: Ordering) -> Outcome<'b, 'v> {
    let mut all = elements(args, 0, name)?.into_iter();
    let mut best = all.next().ok_or_else(|| failed(name, format!("{name} called on empty list")))?;
    for item in all {
        if compare(&*item, &*best)? == wanted {
            best = item;
        }
    }
    Ok(CowVal::Owned(best))
}

fn min<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    extreme(&args, "min", Ordering::Less)
}

fn max<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    extreme(&args, "max", Ordering::Greater)
}

fn position<'b, 'v>(args: &[CowVal<'b, 'v>], name: &str, last: bool) -> Outcome<'b, 'v> {
    let all = elements(args, 0, name)?;
    let wanted = args.get(1).ok_or_else(|| failed(name, "no such overload"))?;
    let mut found = all.iter().enumerate().filter(|(_, item)| item.equals(wanted.as_ref())).map(|(index, _)| index);
    let found = if last { found.next_back() } else { found.next() };
    number(found.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1))
}

fn index_of<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    position(&args, "indexOf", false)
}

fn last_index_of<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    position(&args, "lastIndexOf", true)
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let list = || types::LIST_TYPE;
    env.add_member_overload("isSorted", "list_is_sorted", list(), Vec::new(), is_sorted)?;
    env.add_member_overload("sum", "list_sum", list(), Vec::new(), sum)?;
    env.add_member_overload("min", "list_min", list(), Vec::new(), min)?;
    env.add_member_overload("max", "list_max", list(), Vec::new(), max)?;
    env.add_member_overload("indexOf", "list_index_of", list(), vec![types::DYN_TYPE], index_of)?;
    env.add_member_overload("lastIndexOf", "list_last_index_of", list(), vec![types::DYN_TYPE], last_index_of)
}
