//! Literals of lists and maps, whose elements have to be of one type, and texts that stand for something else.

use cel::common::ast::{EntryExpr, Expr, ListExpr, LiteralValue, MapExpr};
use cel::parser::Expression;

use super::types::Type;
use super::unify::most_general;
use super::visit::Checker;
use crate::duration::DurationVal;
use crate::pattern::compile_pattern;
use crate::timestamp::TimestampVal;
use crate::walk::walk;

impl Checker<'_> {
    /// The type of all elements of a literal so far: `dyn` where they differ, which is refused in the end.
    fn join(&mut self, earlier: Option<Type>, own: Type) -> Type {
        match earlier {
            None => own,
            Some(earlier) if self.fits(&earlier, &own) => most_general(&earlier, &own).clone(),
            Some(_) => Type::Dyn,
        }
    }

    /// Remembers the types of a literal's elements.
    fn literal(&mut self, own: &[(u64, Type)]) {
        if let Some((_, first)) = own.first().filter(|_| self.formats == 0) {
            self.elements.extend(own[1..].iter().map(|(id, of)| (*id, first.clone(), of.clone())));
        }
    }

    /// The type of an element that is left out where its optional value is none.
    fn unwrapped(&mut self, id: u64, own: Type) -> Type {
        match own.within_optional() {
            Some(within) => within.clone(),
            None if own.is_dynamic() => own,
            None => {
                let why = format!(
                    "expected type '{}' but found '{}'",
                    self.shown(&Type::optional(own.clone())),
                    self.shown(&own)
                );
                self.wrong(id, why);
                own
            }
        }
    }

    pub(super) fn list(&mut self, list: &ListExpr) -> Type {
        let (mut items, mut all) = (None, Vec::new());
        for (index, element) in list.elements.iter().enumerate() {
            let mut own = self.visit(element);
            if list.optional_indices.contains(&index) {
                own = self.unwrapped(element.id, own);
            }
            all.push((element.id, own.clone()));
            items = Some(self.join(items, own));
        }
        self.literal(&all);
        Type::List(Box::new(items.unwrap_or_else(|| self.fresh())))
    }

    pub(super) fn map(&mut self, map: &MapExpr) -> Type {
        let (mut keys, mut values) = ((None, Vec::new()), (None, Vec::new()));
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
            let key = self.visit(&entry.key);
            keys.1.push((entry.key.id, key.clone()));
            keys.0 = Some(self.join(keys.0, key));
            let mut value = self.visit(&entry.value);
            if entry.optional {
                value = self.unwrapped(entry.value.id, value);
            }
            values.1.push((entry.value.id, value.clone()));
            values.0 = Some(self.join(values.0, value));
        }
        self.literal(&keys.1);
        self.literal(&values.1);
        let (keys, values) = (keys.0.unwrap_or_else(|| self.fresh()), values.0.unwrap_or_else(|| self.fresh()));
        Type::Map(Box::new(keys), Box::new(values))
    }

    /// Finds literals whose elements differ in type, and literal arguments that cannot be read: times, durations and
    /// patterns. As upstream does, only where nothing else is wrong.
    pub(super) fn literals(&mut self, expression: &Expression) {
        if !self.problems.is_empty() {
            return;
        }
        let mut found = Vec::new();
        for (id, first, own) in &self.elements {
            let [first, own] = [first, own].map(|of| self.known.resolve(of, true));
            if !first.is(&own) {
                found.push((*id, format!("expected type '{first}' but found '{own}'")));
            }
        }
        walk(expression, &mut |part| {
            let Expr::Call(call) = &part.expr else { return };
            let Some(Expression { id, expr: Expr::Literal(LiteralValue::String(text)) }) = call.args.last() else {
                return;
            };
            let (text, is_only) = (text.inner(), call.target.is_none() && call.args.len() == 1);
            let is_bad = match call.func_name.as_str() {
                "duration" => is_only && DurationVal::parse(text).is_err(),
                "timestamp" => is_only && TimestampVal::parse(text).is_err(),
                "matches" => compile_pattern(text).is_err(),
                _ => false,
            };
            if is_bad {
                found.push((*id, format!("invalid {} argument", call.func_name)));
            }
        });
        for (id, message) in found {
            self.wrong(id, message);
        }
    }
}
