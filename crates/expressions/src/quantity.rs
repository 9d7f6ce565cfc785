//! Kubernetes' `quantity` type for CEL.

use std::cmp::Ordering;

use cel::common::types::{self, CelDouble, CelInt, Type};
use cel::common::value::CowVal;
use cel::{DeclarationError, Env, ExecutionError};
use kedge_meta::Quantity;

use crate::call::{Args, Outcome, failed, number, text_at, truth, value_type};
use crate::ordered::{self, Ordered};

/// A quantity as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantityVal(pub Quantity);

value_type!(TYPE: QuantityVal, "kubernetes.Quantity", |one, other| one.0 == other.0);

fn quantity_at(args: &[CowVal<'_, '_>], index: usize) -> Result<Quantity, ExecutionError> {
    let found = args.get(index).and_then(|value| {
        let own = value.downcast_ref::<QuantityVal>().map(|value| value.0);
        own.or_else(|| value.downcast_ref::<CelInt>().map(|number| Quantity::from_units(*number.inner())))
    });
    found.ok_or_else(|| failed("quantity", "no such overload"))
}

fn parsed(args: &[CowVal<'_, '_>]) -> Result<Quantity, ExecutionError> {
    text_at(args, 0, "quantity")?.parse().map_err(|error| failed("quantity", error))
}

fn quantity<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(QuantityVal(parsed(&args)?)))
}

fn is_quantity<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(parsed(&args).is_ok())
}

impl Ordered for QuantityVal {
    fn compared(args: &[CowVal<'_, '_>]) -> Result<Ordering, ExecutionError> {
        Ok(quantity_at(args, 0)?.cmp(&quantity_at(args, 1)?))
    }
}

fn add<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(QuantityVal(quantity_at(&args, 0)? + quantity_at(&args, 1)?)))
}

fn sub<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(QuantityVal(quantity_at(&args, 0)? - quantity_at(&args, 1)?)))
}

fn sign<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    number(quantity_at(&args, 0)?.cmp(&Quantity::ZERO) as i64)
}

fn is_whole(amount: Quantity) -> bool {
    Quantity::from_units(amount.units()) == amount
}

fn is_integer<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(is_whole(quantity_at(&args, 0)?))
}

fn as_integer<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let amount = quantity_at(&args, 0)?;
    match is_whole(amount) {
        true => number(amount.units()),
        false => Err(failed("asInteger", "cannot convert value to integer")),
    }
}

fn as_approximate_float<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let amount = quantity_at(&args, 0)?;
    let text = amount.to_string();
    let (digits, scale) = match text.char_indices().last() {
        Some((end, 'm')) => (&text[..end], 1e-3),
        Some((end, 'u')) => (&text[..end], 1e-6),
        Some((end, 'n')) => (&text[..end], 1e-9),
        _ => (text.as_str(), 1.0),
    };
    let number: f64 = digits.parse().map_err(|error| failed("asApproximateFloat", error))?;
    Ok(CowVal::owned(CelDouble::from(number * scale)))
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let text = || vec![types::STRING_TYPE];
    env.add_type(TYPE.to_owned())?;
    ordered::declare::<QuantityVal>(env, "quantity", &TYPE)?;
    env.add_overload("quantity", "string_to_quantity", text(), quantity)?;
    env.add_overload("isQuantity", "is_quantity_string", text(), is_quantity)?;
    let mut member = |name: &str, id: &str, args: Vec<Type>, function| {
        env.add_member_overload(name, id, TYPE.to_owned(), args, function)
    };
    member("add", "quantity_add", vec![TYPE.to_owned()], add)?;
    member("add", "quantity_add_int", vec![types::INT_TYPE], add)?;
    member("sub", "quantity_sub", vec![TYPE.to_owned()], sub)?;
    member("sub", "quantity_sub_int", vec![types::INT_TYPE], sub)?;
    member("sign", "quantity_sign", Vec::new(), sign)?;
    member("isInteger", "quantity_is_integer", Vec::new(), is_integer)?;
    member("asInteger", "quantity_as_integer", Vec::new(), as_integer)?;
    member("asApproximateFloat", "quantity_as_approximate_float", Vec::new(), as_approximate_float)
}
