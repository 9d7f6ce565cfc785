//! What types go with each other, and what free types turn out to be.

use std::cell::Cell;
use std::collections::HashMap;

use super::types::Type;

/// How many parts of types one question may look at: types may contain each other many times over.
const MOST_STEPS: usize = 10_000;

/// What is known of free types.
#[derive(Debug, Default)]
pub(super) struct Known {
    found: HashMap<usize, Type>,
    /// What has changed since a question began, to take it back: free types with what was known of them before.
    changes: Vec<(usize, Option<Type>)>,
    steps: Cell<usize>,
}

impl Known {
    /// Whether all pairs go together; what that says of free types is kept if they do.
    pub(super) fn unify<'t>(&mut self, pairs: impl IntoIterator<Item = (&'t Type, &'t Type)>) -> bool {
        self.steps.set(0);
        let fit = pairs.into_iter().all(|(one, other)| self.assignable(one, other));
        for (free, before) in self.changes.drain(..).rev().filter(|_| !fit) {
            match before {
                Some(before) => self.found.insert(free, before),
                None => self.found.remove(&free),
            };
        }
        fit
    }

    /// A type with all that is known put into it; what is still free becomes `dyn` where that is asked for, and so does what
    /// is too much to look at.
    pub(super) fn resolve(&self, of: &Type, free_to_dyn: bool) -> Type {
        self.steps.set(0);
        self.resolved(of, free_to_dyn)
    }

    fn resolved(&self, of: &Type, free_to_dyn: bool) -> Type {
        if self.is_too_much() {
            return Type::Dyn;
        }
        match of {
            Type::Free(index) => match self.found.get(index) {
                Some(known) => self.resolved(known, free_to_dyn),
                None if free_to_dyn => Type::Dyn,
                None => of.clone(),
            },
            other => other.rebuilt(&mut |part| self.resolved(part, free_to_dyn)),
        }
    }

    fn is_too_much(&self) -> bool {
        self.steps.set(self.steps.get() + 1);
        self.steps.get() > MOST_STEPS
    }

    fn learn(&mut self, free: usize, own: Type) {
        let before = self.found.insert(free, own);
        self.changes.push((free, before));
    }

    fn assignable(&mut self, one: &Type, other: &Type) -> bool {
        // What is not looked at goes together.
        if self.is_too_much() {
            return true;
        }
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
            _ => compare_parts(one, other, &mut |part, other| self.assignable(part, other)),
        }
    }

    /// Whether a free type may be `wanted`, and whether something was known of it.
    fn substitutes(&mut self, wanted: &Type, free: usize) -> (bool, bool) {
        if wanted.is(&Type::Free(free)) {
            return (true, true);
        }
        if let Some(known) = self.found.get(&free).cloned() {
            if wanted.is(&known) {
                return (true, true);
            }
            let fits = self.assignable(wanted, &known);
            if fits {
                let general = most_general(wanted, &known).clone();
                if !self.occurs(free, &general) {
                    self.learn(free, general);
                }
            }
            return (fits, true);
        }
        let fits = !self.occurs(free, wanted);
        if fits {
            self.learn(free, wanted.clone());
        }
        (fits, false)
    }

    /// Whether a free type is part of another type.
    fn occurs(&self, free: usize, within: &Type) -> bool {
        match within {
            _ if self.is_too_much() => true,
            Type::Free(index) if *index == free => true,
            Type::Free(index) => self.found.get(index).is_some_and(|known| self.occurs(free, known)),
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
        _ => compare_parts(one, other, &mut says_no_more),
    }
}

/// Whether two types are of one kind, and all their parts compare; types without parts must be the same.
fn compare_parts(one: &Type, other: &Type, compare: &mut dyn FnMut(&Type, &Type) -> bool) -> bool {
    match (one, other) {
        (Type::Type(_), Type::Type(_)) => true,
        (Type::Opaque(name, _), Type::Opaque(other_name, _)) if name != other_name => false,
        (Type::Opaque(..) | Type::List(_) | Type::Map(..), _) => {
            let (parts, others) = (one.parts(), other.parts());
            one.is_same_kind(other)
                && parts.len() == others.len()
                && parts.into_iter().zip(others).all(|(part, other)| compare(part, other))
        }
        _ => one.is(other),
    }
}
