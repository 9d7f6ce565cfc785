//! Kubernetes' own CEL functions, and `cel.bind`: of lists `isSorted`, `sum`, `min`, `max`, `indexOf`, `lastIndexOf`; of
//! texts `find` and `findAll`.

use std::cmp::Ordering;

use cel::common::ast::{ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue};
use cel::common::types::{self, CelBool, CelInt, CelList, CelString};
use cel::common::value::{CowVal, Val};
use cel::parser::Macro;
use cel::{DeclarationError, Env, ExecutionError};

type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn failed(function: &str, message: &str) -> ExecutionError {
    ExecutionError::FunctionError { function: function.to_owned(), message: message.to_owned() }
}

/// The elements of the list that a function is called on.
fn elements<'v>(args: &[CowVal<'_, 'v>], function: &str) -> Result<Vec<Box<dyn Val + 'v>>, ExecutionError> {
    let list = args.first().ok_or_else(|| failed(function, "no such overload"))?;
    let list = list.as_ref().as_iterable().ok_or_else(|| failed(function, "no such overload"))?;
    let (mut found, mut items) = (Vec::new(), list.iter());
    while let Some(item) = items.next() {
        found.push(item.clone_as_boxed());
    }
    Ok(found)
}

fn compare(a: &dyn Val, b: &dyn Val) -> Result<Ordering, ExecutionError> {
    let comparer = a.as_comparer().ok_or_else(|| failed("compare", "no such overload"))?;
    comparer.compare(b)
}

fn is_sorted<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let all = elements(&args, "isSorted")?;
    for pair in all.windows(2) {
        if compare(&*pair[0], &*pair[1])?.is_gt() {
            return Ok(CowVal::owned(CelBool::from(false)));
        }
    }
    Ok(CowVal::owned(CelBool::from(true)))
}

fn sum<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let mut all = elements(&args, "sum")?.into_iter();
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
    let mut all = elements(args, name)?.into_iter();
    let mut best = all.next().ok_or_else(|| failed(name, &format!("{name} called on empty list")))?;
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
    let all = elements(args, name)?;
    let wanted = args.get(1).ok_or_else(|| failed(name, "no such overload"))?;
    let mut found = all.iter().enumerate().filter(|(_, item)| item.equals(wanted.as_ref())).map(|(index, _)| index);
    let found = if last { found.next_back() } else { found.next() };
    let found = found.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1);
    Ok(CowVal::owned(CelInt::from(found)))
}

fn index_of<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    position(&args, "indexOf", false)
}

fn last_index_of<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    position(&args, "lastIndexOf", true)
}

/// What a pattern matches in a text.
fn matches(args: &[CowVal<'_, '_>], most: usize) -> Result<Vec<String>, ExecutionError> {
    let text = |index: usize| {
        let value = args.get(index).and_then(|value| value.downcast_ref::<CelString<'_>>());
        value.map(|value| value.inner().to_owned()).ok_or_else(|| failed("find", "no such overload"))
    };
    let regex = crate::pattern::compile(&text(1)?).map_err(|error| failed("find", &error))?;
    Ok(regex.find_iter(&text(0)?).take(most).map(|found| found.as_str().to_owned()).collect())
}

fn find<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let first = matches(&args, 1)?.into_iter().next().unwrap_or_default();
    Ok(CowVal::owned(CelString::from(first)))
}

fn find_all<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let all = matches(&args, usize::MAX)?;
    let all: Vec<Box<dyn Val>> = all.into_iter().map(|text| Box::new(CelString::from(text)) as Box<dyn Val>).collect();
    Ok(CowVal::owned(CelList::from(all)))
}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let list = || types::LIST_TYPE;
    env.add_member_overload("isSorted", "list_is_sorted", list(), Vec::new(), is_sorted)?;
    env.add_member_overload("sum", "list_sum", list(), Vec::new(), sum)?;
    env.add_member_overload("min", "list_min", list(), Vec::new(), min)?;
    env.add_member_overload("max", "list_max", list(), Vec::new(), max)?;
    env.add_member_overload("indexOf", "list_index_of", list(), vec![types::DYN_TYPE], index_of)?;
    env.add_member_overload("lastIndexOf", "list_last_index_of", list(), vec![types::DYN_TYPE], last_index_of)?;
    env.add_member_overload("find", "string_find", types::STRING_TYPE, vec![types::STRING_TYPE], find)?;
    env.add_member_overload("findAll", "string_find_all", types::STRING_TYPE, vec![types::STRING_TYPE], find_all)?;
    env.add_macro(bind())
}

/// `cel.bind(name, value, expression)`: a loop over nothing, whose result is evaluated with the name.
fn bind() -> Macro {
    Macro::receiver("bind", 3, |helper, target, args| {
        let is_cel = |target: &IdedExpr| matches!(&target.expr, Expr::Ident(name) if name == "cel");
        let Expr::Ident(name) = &args[0].expr else { return Ok(None) };
        if !target.as_ref().is_some_and(is_cel) {
            return Ok(None);
        }
        let name = name.clone();
        let mut rest = args.drain(1..);
        let (Some(value), Some(result)) = (rest.next(), rest.next()) else { return Ok(None) };
        let bound = Expr::Comprehension(Box::new(ComprehensionExpr {
            iter_range: helper.next_expr(Expr::List(ListExpr::new(Vec::new()))),
            iter_var: "#unused".to_owned(),
            iter_var2: None,
            accu_var: name.clone(),
            accu_init: value,
            loop_cond: helper.next_expr(Expr::Literal(LiteralValue::Boolean(CelBool::from(false)))),
            loop_step: helper.next_expr(Expr::Ident(name)),
            result,
        }));
        Ok(Some(helper.next_expr(bound)))
    })
}
