//! `format` with times among what it writes: the function itself comes with the interpreter, which knows nothing of them.

use std::collections::HashMap;

use cel::common::ast::{CallExpr, Expr};
use cel::common::types::{self, CelList, CelMap, CelString};
use cel::common::value::{CowVal, Val};
use cel::parser::Macro;
use cel::{DeclarationError, Env};

use crate::call::{Args, Outcome, elements};
use crate::duration::DurationVal;
use crate::timestamp::TimestampVal;
use crate::two_variables::map_key;

/// Gives a value with texts in the place of times.
pub(crate) const PRINTABLE: &str = "@printable";

fn printable<'v>(value: Box<dyn Val + 'v>) -> Result<Box<dyn Val + 'v>, cel::ExecutionError> {
    let time = value.downcast_ref::<TimestampVal>().map(TimestampVal::text);
    if let Some(text) = time.or_else(|| value.downcast_ref::<DurationVal>().map(|own| own.text())) {
        return Ok(Box::new(CelString::from(text)));
    }
    let kind = value.get_type().name().to_owned();
    if !matches!(kind.as_str(), "list" | "map") {
        return Ok(value);
    }
    let value = [CowVal::Owned(value)];
    let items = elements(&value, 0, PRINTABLE)?;
    if kind == "list" {
        let items = items.into_iter().map(printable).collect::<Result<Vec<_>, _>>()?;
        return Ok(Box::new(CelList::from(items)));
    }
    let mut map = HashMap::with_capacity(items.len());
    for name in items {
        if let Some(Ok(own)) = value[0].as_indexer().map(|fields| fields.get(&*name)) {
            map.insert(map_key(&*name)?, printable(own.into_owned())?);
        }
    }
    Ok(Box::new(CelMap::from(map)))
}

fn printable_value<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let value = args.into_iter().next().map(CowVal::into_owned);
    let value = value.ok_or_else(|| crate::call::failed(PRINTABLE, "no such overload"))?;
    printable(value).map(CowVal::Owned)
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(PRINTABLE, "printable", vec![types::DYN_TYPE], printable_value)?;
    env.add_macro(Macro::receiver("format", 1, |helper, target, args| {
        let args = std::mem::take(args);
        let printable = CallExpr { func_name: PRINTABLE.to_owned(), target: None, args };
        let args = vec![helper.next_expr(Expr::Call(printable))];
        let format = CallExpr { func_name: "format".to_owned(), target: target.take().map(Box::new), args };
        Ok(Some(helper.next_expr(Expr::Call(format))))
    }))
}
