//! Macros over two variables, index and element of a list or key and value of a map: `all`, `exists`, `existsOne`,
//! `transformList`, `transformMap`, `transformMapEntry`.
//!
//! The interpreter loops with one variable: each macro becomes a loop over pairs, in which the two names are bound.
//! Functions that begin with `@` cannot be written by anyone.

use std::collections::HashMap;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, operators};
use cel::common::types::{self, CelBool, CelInt, CelList, CelMap, CelMapKey, CelString};
use cel::common::value::{CowVal, Val};
use cel::parser::{Macro, MacroExprHelper};
use cel::{DeclarationError, Env, ExecutionError, ParseError};

use crate::binding::bound;
use crate::call::{Args, Outcome, elements, failed};

/// The pairs of a list or map.
pub(crate) const PAIRS: &str = "@pairs";
const FIRST: &str = "@first";
const SECOND: &str = "@second";
const PAIR: &str = "@pair";
const MAP_OF: &str = "@mapOf";
const MERGED: &str = "@merged";
/// The variable of the loop, and what it comes to.
const TURN: &str = "@turn";
const RESULT: &str = "@result";

type Expanded = Result<Option<IdedExpr>, ParseError>;
type Helper<'a> = MacroExprHelper<'a>;

/// A macro with its arguments taken apart.
struct Parts {
    range: IdedExpr,
    names: [String; 2],
    filter: Option<IdedExpr>,
    body: IdedExpr,
}

impl Parts {
    fn take(helper: &Helper<'_>, target: &mut Option<IdedExpr>, args: &mut Vec<IdedExpr>) -> Result<Self, ParseError> {
        let name = |index: usize| match &args[index].expr {
            Expr::Ident(name) if name == RESULT || name == "__result__" => {
                Err(helper.new_error(args[index].id, "iteration variable overwrites accumulator variable"))
            }
            Expr::Ident(name) => Ok(name.clone()),
            _ => Err(helper.new_error(args[index].id, "argument is not an identifier")),
        };
        let names = [name(0)?, name(1)?];
        if names[0] == names[1] {
            return Err(helper.new_error(args[1].id, format!("duplicate variable name: {}", names[0])));
        }
        let body = args.pop().expect("a macro of three or four arguments");
        let filter = args.drain(2..).next();
        Ok(Self { range: target.take().expect("a macro of a target"), names, filter, body })
    }

    /// An expression within which the two names are bound.
    fn within(&self, helper: &mut Helper<'_>, inner: IdedExpr) -> IdedExpr {
        let [first, second] = self.names.clone();
        let mut of_turn = |function: &str| {
            let turn = ident(helper, TURN);
            call(helper, function, vec![turn])
        };
        let values = [of_turn(FIRST), of_turn(SECOND)];
        let [of_first, of_second] = values;
        let inner = bound(helper, second, of_second, inner);
        bound(helper, first, of_first, inner)
    }

    /// The loop over all pairs.
    fn fold(self, helper: &mut Helper<'_>, init: Expr, condition: IdedExpr, step: IdedExpr) -> IdedExpr {
        let all = ComprehensionExpr {
            iter_range: call(helper, PAIRS, vec![self.range]),
            iter_var: TURN.to_owned(),
            iter_var2: None,
            accu_var: RESULT.to_owned(),
            accu_init: helper.next_expr(init),
            loop_cond: condition,
            loop_step: step,
            result: ident(helper, RESULT),
        };
        helper.next_expr(Expr::Comprehension(Box::new(all)))
    }

    /// The list of what an expression comes to for each pair that passes the filter.
    fn collect(mut self, helper: &mut Helper<'_>, item: IdedExpr) -> IdedExpr {
        let item = self.within(helper, item);
        let so_far = ident(helper, RESULT);
        let more = helper.next_expr(Expr::List(ListExpr::new(vec![item])));
        let mut step = call(helper, operators::ADD, vec![so_far, more]);
        if let Some(filter) = self.filter.take() {
            let filter = self.within(helper, filter);
            let otherwise = ident(helper, RESULT);
            step = call(helper, operators::CONDITIONAL, vec![filter, step, otherwise]);
        }
        let always = truth(helper, true);
        self.fold(helper, Expr::List(ListExpr::new(Vec::new())), always, step)
    }

    fn take_body(&mut self) -> IdedExpr {
        std::mem::take(&mut self.body)
    }
}

fn ident(helper: &mut Helper<'_>, name: &str) -> IdedExpr {
    helper.next_expr(Expr::Ident(name.to_owned()))
}

fn call(helper: &mut Helper<'_>, function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    helper.next_expr(Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }))
}

fn truth(helper: &mut Helper<'_>, yes: bool) -> IdedExpr {
    helper.next_expr(Expr::Literal(LiteralValue::Boolean(CelBool::from(yes))))
}

fn all(helper: &mut Helper<'_>, target: &mut Option<IdedExpr>, args: &mut Vec<IdedExpr>) -> Expanded {
    let mut parts = Parts::take(helper, target, args)?;
    let body = parts.take_body();
    let body = parts.within(helper, body);
    let so_far = ident(helper, RESULT);
    let condition = call(helper, operators::NOT_STRICTLY_FALSE, vec![so_far]);
    let so_far = ident(helper, RESULT);
    let step = call(helper, operators::LOGICAL_AND, vec![so_far, body]);
    Ok(Some(parts.fold(helper, Expr::Literal(LiteralValue::Boolean(CelBool::from(true))), condition, step)))
}

fn exists(helper: &mut Helper<'_>, target: &mut Option<IdedExpr>, args: &mut Vec<IdedExpr>) -> Expanded {
    let mut parts = Parts::take(helper, target, args)?;
    let body = parts.take_body();
    let body = parts.within(helper, body);
    let so_far = ident(helper, RESULT);
    let not = call(helper, operators::LOGICAL_NOT, vec![so_far]);
    let condition = call(helper, operators::NOT_STRICTLY_FALSE, vec![not]);
    let so_far = ident(helper, RESULT);
    let step = call(helper, operators::LOGICAL_OR, vec![so_far, body]);
    Ok(Some(parts.fold(helper, Expr::Literal(LiteralValue::Boolean(CelBool::from(false))), condition, step)))
}

fn exists_one(helper: &mut Helper<'_>, target: &mut Option<IdedExpr>, args: &mut Vec<IdedExpr>) -> Expanded {
    let mut parts = Parts::take(helper, target, args)?;
    let body = parts.take_body();
    let body = parts.within(helper, body);
    let one = |helper: &mut Helper<'_>| helper.next_expr(Expr::Literal(LiteralValue::Int(CelInt::from(1))));
    let (so_far, more) = (ident(helper, RESULT), one(helper));
    let next = call(helper, operators::ADD, vec![so_far, more]);
    let otherwise = ident(helper, RESULT);
    let step = call(helper, operators::CONDITIONAL, vec![body, next, otherwise]);
    let always = truth(helper, true);
    let count = parts.fold(helper, Expr::Literal(LiteralValue::Int(CelInt::from(0))), always, step);
    let one = one(helper);
    Ok(Some(call(helper, operators::EQUALS, vec![count, one])))
}

fn transform_list(helper: &mut Helper<'_>, target: &mut Option<IdedExpr>, args: &mut Vec<IdedExpr>) -> Expanded {
    let mut parts = Parts::take(helper, target, args)?;
    let body = parts.take_body();
    Ok(Some(parts.collect(helper, body)))
}

fn transform_map(helper: &mut Helper<'_>, target: &mut Option<IdedExpr>, args: &mut Vec<IdedExpr>) -> Expanded {
    let mut parts = Parts::take(helper, target, args)?;
    let (key, value) = (ident(helper, &parts.names[0]), parts.take_body());
    let pair = call(helper, PAIR, vec![key, value]);
    let pairs = parts.collect(helper, pair);
    Ok(Some(call(helper, MAP_OF, vec![pairs])))
}

fn transform_map_entry(helper: &mut Helper<'_>, target: &mut Option<IdedExpr>, args: &mut Vec<IdedExpr>) -> Expanded {
    let mut parts = Parts::take(helper, target, args)?;
    let body = parts.take_body();
    let maps = parts.collect(helper, body);
    Ok(Some(call(helper, MERGED, vec![maps])))
}

fn no_overload(function: &str) -> ExecutionError {
    failed(function, "no such overload")
}

fn pair<'v>(first: Box<dyn Val + 'v>, second: Box<dyn Val + 'v>) -> Box<dyn Val + 'v> {
    Box::new(CelList::from(vec![first, second]))
}

fn pairs<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let of = args.first().ok_or_else(|| no_overload(PAIRS))?;
    let items = elements(&args, 0, PAIRS)?;
    let indexer = of.as_ref().as_indexer().filter(|_| of.get_type().name() == "map");
    let mut found = Vec::with_capacity(items.len());
    for (index, item) in (0_i64..).zip(items) {
        found.push(match indexer {
            Some(map) => {
                let value = map.get(&*item)?.into_owned();
                pair(item, value)
            }
            None => pair(Box::new(CelInt::from(index)), item),
        });
    }
    Ok(CowVal::owned(CelList::from(found)))
}

fn of_pair<'b, 'v>(args: &[CowVal<'b, 'v>], index: usize, function: &str) -> Outcome<'b, 'v> {
    let found = elements(args, 0, function)?.into_iter().nth(index);
    found.map(CowVal::Owned).ok_or_else(|| no_overload(function))
}

fn first<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    of_pair(&args, 0, FIRST)
}

fn second<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    of_pair(&args, 1, SECOND)
}

fn make_pair<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let mut args = args.into_iter();
    let (first, second) = args.next().zip(args.next()).ok_or_else(|| no_overload(PAIR))?;
    Ok(CowVal::Owned(pair(first.into_owned(), second.into_owned())))
}

/// A value as the key of a map, and what an error calls it.
pub(crate) fn map_key(value: &dyn Val) -> Result<CelMapKey<'static>, ExecutionError> {
    use cel::common::types::CelUInt;
    let text = value.downcast_ref::<CelString<'_>>().map(|text| CelMapKey::String(text.inner().to_owned().into()));
    let int = || value.downcast_ref::<CelInt>().map(|number| CelMapKey::Int(*number));
    let uint = || value.downcast_ref::<CelUInt>().map(|number| CelMapKey::UInt(*number));
    let truth = || value.downcast_ref::<CelBool>().map(|yes| CelMapKey::Bool(*yes));
    text.or_else(int).or_else(uint).or_else(truth).ok_or_else(|| failed(MAP_OF, "unsupported key type"))
}

fn inserted<'b, 'v>(pairs: impl Iterator<Item = Result<[Box<dyn Val + 'v>; 2], ExecutionError>>) -> Outcome<'b, 'v> {
    let mut map = HashMap::new();
    for entry in pairs {
        let [own, value] = entry?;
        if map.insert(map_key(&*own)?, value).is_some() {
            let name = own.downcast_ref::<CelString<'_>>().map(|text| text.inner().to_owned());
            let name = name.or_else(|| own.downcast_ref::<CelInt>().map(|number| number.inner().to_string()));
            return Err(failed(MERGED, format!("insert failed: key {} already exists", name.unwrap_or_default())));
        }
    }
    Ok(CowVal::owned(CelMap::from(map)))
}

fn map_of<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let entries = elements(&args, 0, MAP_OF)?.into_iter().map(|entry| {
        let mut parts = elements(&[CowVal::Owned(entry)], 0, MAP_OF)?.into_iter();
        parts.next().zip(parts.next()).map(|(key, value)| [key, value]).ok_or_else(|| no_overload(MAP_OF))
    });
    inserted(entries)
}

fn merged<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let mut entries = Vec::new();
    for map in elements(&args, 0, MERGED)? {
        let map: CowVal<'_, 'v> = CowVal::Owned(map);
        let keys = elements(std::slice::from_ref(&map), 0, MERGED)?;
        let indexer = map.as_ref().as_indexer().filter(|_| map.get_type().name() == "map");
        let indexer = indexer.ok_or_else(|| no_overload(MERGED))?;
        for key in keys {
            let value = indexer.get(&*key)?.into_owned();
            entries.push(Ok([key, value]));
        }
    }
    inserted(entries.into_iter())
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let dynamic = |count: usize| (0..count).map(|_| types::DYN_TYPE).collect::<Vec<_>>();
    for name in ["existsOne", "exists_one"] {
        env.add_macro(Macro::receiver(name, 3, exists_one))?;
    }
    env.add_macro(Macro::receiver("all", 3, all))?;
    env.add_macro(Macro::receiver("exists", 3, exists))?;
    for count in [3, 4] {
        env.add_macro(Macro::receiver("transformList", count, transform_list))?;
        env.add_macro(Macro::receiver("transformMap", count, transform_map))?;
        env.add_macro(Macro::receiver("transformMapEntry", count, transform_map_entry))?;
    }
    env.add_overload(PAIRS, "pairs", dynamic(1), pairs)?;
    env.add_overload(FIRST, "first_of_pair", dynamic(1), first)?;
    env.add_overload(SECOND, "second_of_pair", dynamic(1), second)?;
    env.add_overload(PAIR, "pair", dynamic(2), make_pair)?;
    env.add_overload(MAP_OF, "map_of_pairs", dynamic(1), map_of)?;
    env.add_overload(MERGED, "maps_merged", dynamic(1), merged)
}
