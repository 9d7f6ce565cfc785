//! Kubernetes' `quantity` type for CEL.

use std::any::Any;
use std::cmp::Ordering;

use cel::common::types::{self, CelBool, CelDouble, CelInt, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use kedge_meta::Quantity;

static TYPE: Type = Type::new_unspecified_type("kubernetes.Quantity");

/// A quantity as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QuantityVal(pub(super) Quantity);

impl Val for QuantityVal {
    fn get_type(&self) -> &Type {
        &TYPE
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>() == Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for QuantityVal {}

type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn failed(function: &str, message: impl ToString) -> ExecutionError {
    ExecutionError::FunctionError { function: function.to_owned(), message: message.to_string() }
}

fn quantity_at(args: &[CowVal<'_, '_>], index: usize) -> Result<Quantity, ExecutionError> {
    let found = args.get(index).and_then(|value| {
        let own = value.downcast_ref::<QuantityVal>().map(|value| value.0);
        own.or_else(|| value.downcast_ref::<CelInt>().map(|number| Quantity::from_units(*number.inner())))
    });
    found.ok_or_else(|| failed("quantity", "no such overload"))
}

fn parsed(args: &[CowVal<'_, '_>]) -> Result<Quantity, ExecutionError> {
    let text = args.first().and_then(|value| value.downcast_ref::<CelString<'_>>());
    let text = text.ok_or_else(|| failed("quantity", "no such overload"))?;
    text.inner().parse().map_err(|error| failed("quantity", error))
}

fn quantity<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(QuantityVal(parsed(&args)?)))
}

fn is_quantity<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(parsed(&args).is_ok())))
}

fn compared(args: &[CowVal<'_, '_>]) -> Result<Ordering, ExecutionError> {
    Ok(quantity_at(args, 0)?.cmp(&quantity_at(args, 1)?))
}

fn compare_to<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelInt::from(compared(&args)? as i64)))
}

fn is_greater_than<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(compared(&args)?.is_gt())))
}

fn is_less_than<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(compared(&args)?.is_lt())))
}

fn add<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(QuantityVal(quantity_at(&args, 0)? + quantity_at(&args, 1)?)))
}

fn sub<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(QuantityVal(quantity_at(&args, 0)? - quantity_at(&args, 1)?)))
}

fn sign<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelInt::from(quantity_at(&args, 0)?.cmp(&Quantity::ZERO) as i64)))
}

fn is_whole(amount: Quantity) -> bool {
    Quantity::from_units(amount.units()) == amount
}

fn is_integer<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(is_whole(quantity_at(&args, 0)?))))
}

fn as_integer<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let amount = quantity_at(&args, 0)?;
    match is_whole(amount) {
        true => Ok(CowVal::owned(CelInt::from(amount.units()))),
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

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let text = || vec![types::STRING_TYPE];
    env.add_type(TYPE.to_owned())?;
    env.add_overload("quantity", "string_to_quantity", text(), quantity)?;
    env.add_overload("isQuantity", "is_quantity_string", text(), is_quantity)?;
    let mut member = |name: &str, id: &str, args: Vec<Type>, function| {
        env.add_member_overload(name, id, TYPE.to_owned(), args, function)
    };
    member("compareTo", "quantity_compare_to", vec![TYPE.to_owned()], compare_to)?;
    member("isGreaterThan", "quantity_is_greater_than", vec![TYPE.to_owned()], is_greater_than)?;
    member("isLessThan", "quantity_is_less_than", vec![TYPE.to_owned()], is_less_than)?;
    member("add", "quantity_add", vec![TYPE.to_owned()], add)?;
    member("add", "quantity_add_int", vec![types::INT_TYPE], add)?;
    member("sub", "quantity_sub", vec![TYPE.to_owned()], sub)?;
    member("sub", "quantity_sub_int", vec![types::INT_TYPE], sub)?;
    member("sign", "quantity_sign", Vec::new(), sign)?;
    member("isInteger", "quantity_is_integer", Vec::new(), is_integer)?;
    member("asInteger", "quantity_as_integer", Vec::new(), as_integer)?;
    member("asApproximateFloat", "quantity_as_approximate_float", Vec::new(), as_approximate_float)
}
