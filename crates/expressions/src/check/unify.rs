//! What types go with each other, and what free types turn out to be.

use std::collections::HashMap;

use super::types::Type;

/// What is known of free types.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(HashMap<usize, Type>);

impl Known {
    /// Whether all pairs go together; what that says of free types is kept if they do.
    pub(super) fn unify<'t>(&mut self, pairs: impl IntoIterator<Item = (&'t Type, &'t Type)>) -> bool {
        let mut attempt = self.clone();
        let fit = pairs.into_iter().all(|(one, other)| attempt.assignable(one, other));
        if fit {
            *self = attempt;
        }
        fit
    }

    /// A type with all that is known put into it; what is still free becomes `dyn` where that is asked for.
    pub(super) fn resolve(&self, of: &Type, free_to_dyn: bool) -> Type {
        match of {
            Type::Free(index) => match self.0.get(index) {
                Some(known) => self.resolve(known, free_to_dyn),
                None if free_to_dyn => Type::Dyn,
                None => of.clone(),
            },
            other => other.rebuilt(&mut |part| self.resolve(part, free_to_dyn)),
        }
    }

    fn assignable(&mut self, one: &Type, other: &Type) -> bool {
        if let Type::Free(index) = other {
            let (fits, was_known) = self.substitutes(one, *index);
            if fits || was_known {
                return fits;
            }
        }
        if let Type::Free(index) = one {
            return self.substitutes(other, *index).0;
        }
        if one.is_dynamic() || other.is_dynamic() {
            return true;
        }
        match (one, other) {
            (Type::Null, other) | (other, Type::Null) => {
                matches!(other, Type::Null | Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp)
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Opaque(name, _), Type::Opaque(other_name, _)) if name != other_name => false,
            (Type::Opaque(..) | Type::List(_) | Type::Map(..), _) => {
                let (parts, others) = (one.parts(), other.parts());
                one.is_same_kind(other)
                    && parts.len() == others.len()
                    && parts.into_iter().zip(others).all(|(part, other)| self.assignable(part, other))
            }
            _ => one.is(other),
        }
    }

    /// Whether a free type may be `wanted`, and whether something was known of it.
    fn substitutes(&mut self, wanted: &Type, free: usize) -> (bool, bool) {
        if wanted.is(&Type::Free(free)) {
            return (true, true);
        }
        if let Some(known) = self.0.get(&free).cloned() {
            if wanted.is(&known) {
                return (true, true);
            }
            let fits = self.assignable(wanted, &known);
            if fits {
                let general = most_general(wanted, &known).clone();
                if !self.occurs(free, &general) {
                    self.0.insert(free, general);
                }
            }
            return (fits, true);
        }
        let fits = !self.occurs(free, wanted);
        if fits {
            self.0.insert(free, wanted.clone());
        }
        (fits, false)
    }

    /// Whether a free type is part of another type.
    fn occurs(&self, free: usize, within: &Type) -> bool {
        match within {
            Type::Free(index) if *index == free => true,
            Type::Free(index) => self.0.get(index).is_some_and(|known| self.occurs(free, known)),
            other => other.parts().into_iter().any(|part| self.occurs(free, part)),
        }
    }
}

/// The one of two types that go together which says less.
pub(super) fn most_general<'t>(one: &'t Type, other: &'t Type) -> &'t Type {
    if says_no_more(one, other) { one } else { other }
}

fn says_no_more(one: &Type, other: &Type) -> bool {
    let is_open = |of: &Type| matches!(of, Type::Dyn | Type::Free(_));
    match (one, other) {
        (one, _) if is_open(one) => true,
        (_, other) if is_open(other) => false,
        (Type::Type(_), Type::Type(_)) => true,
        (Type::Opaque(name, _), Type::Opaque(other_name, _)) if name != other_name => false,
        (Type::Opaque(..) | Type::List(_) | Type::Map(..), _) => {
            let (parts, others) = (one.parts(), other.parts());
            one.is_same_kind(other)
                && parts.len() == others.len()
                && parts.into_iter().zip(others).all(|(part, other)| says_no_more(part, other))
        }
        _ => one.is(other),
    }
}
