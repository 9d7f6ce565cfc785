//! Values of Kubernetes' own types that have an order: `compareTo`, `isGreaterThan` and `isLessThan`.

use std::cmp::Ordering;

use cel::common::types::Type;
use cel::common::value::CowVal;
use cel::{DeclarationError, Env, ExecutionError};

use crate::call::{Args, Outcome, number, truth};

/// A type whose values have an order.
pub(crate) trait Ordered {
    /// How the first argument lies to the second one; an error where one of them is of another type.
    fn compared(args: &[CowVal<'_, '_>]) -> Result<Ordering, ExecutionError>;
}

fn compare_to<'b, 'v, T: Ordered>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    number(T::compared(&args)? as i64)
}

fn is_greater_than<'b, 'v, T: Ordered>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(T::compared(&args)?.is_gt())
}

fn is_less_than<'b, 'v, T: Ordered>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(T::compared(&args)?.is_lt())
}

/// The comparisons of values of the type `own`; `id` is what the names of their overloads begin with.
pub(crate) fn declare<T: Ordered>(env: &mut Env, id: &str, own: &Type) -> Result<(), DeclarationError> {
    let mut member = |name: &str, what: &str, function| {
        env.add_member_overload(name, &format!("{id}_{what}"), own.to_owned(), vec![own.to_owned()], function)
    };
    member("compareTo", "compare_to", compare_to::<T>)?;
    member("isGreaterThan", "is_greater_than", is_greater_than::<T>)?;
    member("isLessThan", "is_less_than", is_less_than::<T>)
}
