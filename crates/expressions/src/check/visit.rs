//! The way through an expression: the type of each part out of those of its own parts.

use std::collections::BTreeMap;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo, StructExpr, operators};
use cel::parser::Expression;

use super::report::at_offset;
use super::signatures::{Signature, signatures, type_name};
use super::types::Type;
use super::unify::Known;

/// How many parts a type may have.
const LARGEST: usize = 500;

pub(super) struct Checker<'a> {
    places: &'a SourceInfo,
    names: &'a BTreeMap<String, Type>,
    /// Names that macros bind, the innermost last.
    bound: Vec<(String, Type)>,
    pub(super) known: Known,
    free: usize,
    /// Where something is wrong, and what.
    pub(super) problems: Vec<(usize, String)>,
    /// How many calls of `format` are around, within which elements of a literal may be of any types.
    pub(super) formats: usize,
    /// Elements of literals with the type of the first one and their own.
    pub(super) elements: Vec<(u64, Type, Type)>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(places: &'a SourceInfo, names: &'a BTreeMap<String, Type>) -> Self {
        Self {
            places,
            names,
            bound: Vec::new(),
            known: Known::default(),
            free: 0,
            problems: Vec::new(),
            formats: 0,
            elements: Vec::new(),
        }
    }

    /// What is wrong, in the order of the source.
    pub(super) fn finish(mut self) -> Vec<String> {
        self.problems.sort_by_key(|(offset, _)| *offset);
        self.problems.dedup();
        self.problems.iter().map(|(offset, message)| at_offset(&self.places.source, *offset, message)).collect()
    }

    pub(super) fn wrong(&mut self, id: u64, message: String) -> Type {
        let offset = self.places.offset_for(id).map_or(0, |(start, _)| start);
        self.problems.push((usize::try_from(offset).unwrap_or_default(), message));
        Type::Error
    }

    pub(super) fn fresh(&mut self) -> Type {
        self.free += 1;
        Type::Free(self.free - 1)
    }

    pub(super) fn fits(&mut self, wanted: &Type, given: &Type) -> bool {
        self.known.unify([(wanted, given)])
    }

    /// A type as messages show it.
    pub(super) fn shown(&self, of: &Type) -> String {
        self.known.resolve(of, true).to_string()
    }

    /// The type of a whole expression, in which nothing is free any more.
    pub(super) fn visit_whole(&mut self, expression: &Expression) -> Type {
        let found = self.visit(expression);
        self.known.resolve(&found, true)
    }

    /// The type of an expression.
    pub(super) fn visit(&mut self, expression: &Expression) -> Type {
        let found = self.visit_part(expression);
        let found = self.known.resolve(&found, false);
        // Of what is made of itself again and again nothing more is said.
        if found.is_larger_than(LARGEST) { Type::Dyn } else { found }
    }

    fn visit_part(&mut self, expression: &Expression) -> Type {
        let id = expression.id;
        match &expression.expr {
            Expr::Literal(literal) => literal_type(literal),
            Expr::Ident(name) => match self.name(name) {
                Some(own) => own,
                None => self.undeclared(id, name),
            },
            Expr::Select(select) => {
                let named = if select.test { None } else { self.qualified(expression) };
                match named {
                    Some(own) => own,
                    None => {
                        let owner = self.visit(&select.operand);
                        let field = self.field(id, &owner, &select.field, false);
                        if select.test { Type::Bool } else { field }
                    }
                }
            }
            Expr::Call(call) => self.call(id, call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(map),
            Expr::Struct(of) => self.construct(of),
            Expr::Comprehension(all) => self.comprehension(all),
            Expr::Unspecified => Type::Error,
        }
    }

    fn undeclared(&mut self, id: u64, name: &str) -> Type {
        self.wrong(id, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn name(&self, name: &str) -> Option<Type> {
        let bound = self.bound.iter().rev().find(|(own, _)| own == name).map(|(_, own)| own);
        bound.or_else(|| self.names.get(name)).cloned().or_else(|| type_name(name))
    }

    /// The type of a name with dots, if the expression is one that is declared as a whole.
    fn qualified(&self, expression: &Expression) -> Option<Type> {
        let name = qualified_name(expression)?;
        let root = name.split('.').next()?;
        let is_bound = self.bound.iter().any(|(own, _)| own == root);
        if is_bound { None } else { self.names.get(&name).cloned().or_else(|| type_name(&name)) }
    }

    fn field(&mut self, id: u64, owner: &Type, name: &str, optional: bool) -> Type {
        let (target, is_optional) = match owner.within_optional() {
            Some(within) => (within.clone(), true),
            None => (owner.clone(), optional),
        };
        let found = match &target {
            Type::Map(_, values) => (**values).clone(),
            Type::Object(object) => match object.fields.field(name) {
                Some(own) => own,
                None => self.wrong(id, format!("undefined field '{name}'")),
            },
            Type::Free(_) => {
                self.fits(&Type::Dyn, &target);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                let why = format!("type '{}' does not support field selection", self.shown(other));
                self.wrong(id, why);
                Type::Dyn
            }
        };
        if is_optional { Type::optional(found) } else { found }
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Type {
        let is_format = usize::from(call.func_name == "format");
        self.formats += is_format;
        let found = self.call_within(id, call);
        self.formats -= is_format;
        found
    }

    fn call_within(&mut self, id: u64, call: &CallExpr) -> Type {
        let name = call.func_name.as_str();
        if name == operators::OPT_SELECT
            && let [operand, Expression { expr: Expr::Literal(LiteralValue::String(field)), .. }] = call.args.as_slice()
        {
            let owner = self.visit(operand);
            return self.field(id, &owner, field.inner(), true);
        }
        if matches!(name, operators::LOGICAL_AND | operators::LOGICAL_OR) {
            return self.logical(call);
        }
        let args: Vec<Type> = call.args.iter().map(|arg| self.visit(arg)).collect();
        let Some(target) = &call.target else {
            return match signatures(name) {
                Some(all) => self.overload(id, name, all, None, args),
                None => self.undeclared(id, name),
            };
        };
        if let Some(prefix) = qualified_name(target).filter(|prefix| !self.bound.iter().any(|(own, _)| own == prefix))
            && let full = format!("{prefix}.{name}")
            && let Some(all) = signatures(&full)
        {
            return self.overload(id, &full, all, None, args);
        }
        let target = self.visit(target);
        match signatures(name) {
            Some(all) => self.overload(id, name, all, Some(target), args),
            None => self.undeclared(id, name),
        }
    }

    /// A chain of `&&` or `||`, which may be long, as a list of what has to be true or false.
    fn logical(&mut self, call: &CallExpr) -> Type {
        let (mut operands, mut chain) = (Vec::new(), call);
        while let Some((first, rest)) = chain.args.split_first() {
            operands.extend(rest);
            match &first.expr {
                Expr::Call(inner) if inner.func_name == call.func_name => chain = inner,
                _ => {
                    operands.push(first);
                    break;
                }
            }
        }
        for operand in operands.into_iter().rev() {
            let own = self.visit(operand);
            self.expect(operand.id, &Type::Bool, &own);
        }
        Type::Bool
    }

    /// What a call comes to: the result of the first signature that fits, or `dyn` where others that fit give others.
    fn overload(&mut self, id: u64, name: &str, all: &[Signature], target: Option<Type>, args: Vec<Type>) -> Type {
        let is_member = target.is_some();
        let given: Vec<Type> = target.into_iter().chain(args).collect();
        let mut found: Option<Type> = None;
        for signature in all.iter().filter(|own| own.is_member == is_member && own.takes.len() == given.len()) {
            let mut parameters = BTreeMap::new();
            let takes: Vec<Type> = signature.takes.iter().map(|own| self.instance(own, &mut parameters)).collect();
            let gives = self.instance(&signature.gives, &mut parameters);
            if !self.known.unify(given.iter().zip(&takes)) {
                continue;
            }
            let gives = self.known.resolve(&gives, false);
            found = Some(match found {
                None => gives,
                Some(earlier) if matches!(earlier, Type::Dyn) || earlier.is(&gives) => earlier,
                Some(_) => Type::Dyn,
            });
        }
        found.unwrap_or_else(|| {
            let shown: Vec<String> = given.iter().map(|own| self.shown(own)).collect();
            let applied = match is_member {
                true => format!("{}.({})", shown[0], shown[1..].join(", ")),
                false => format!("({})", shown.join(", ")),
            };
            self.wrong(id, format!("found no matching overload for '{name}' applied to '{applied}'"))
        })
    }

    /// A type of a signature with free types for its parameters.
    fn instance(&mut self, of: &Type, parameters: &mut BTreeMap<char, Type>) -> Type {
        match of {
            Type::Parameter(letter) => parameters.entry(*letter).or_insert_with(|| self.fresh()).clone(),
            other => other.rebuilt(&mut |part| self.instance(part, parameters)),
        }
    }

    fn expect(&mut self, id: u64, wanted: &Type, given: &Type) {
        if !self.fits(wanted, given) {
            let why = format!("expected type '{}' but found '{}'", self.shown(wanted), self.shown(given));
            self.wrong(id, why);
        }
    }

    /// An object that is made; whether there is such a type is not looked at here.
    fn construct(&mut self, of: &StructExpr) -> Type {
        for entry in &of.entries {
            if let EntryExpr::StructField(field) = &entry.expr {
                self.visit(&field.value);
            }
        }
        Type::opaque(&of.type_name)
    }

    fn comprehension(&mut self, all: &ComprehensionExpr) -> Type {
        let range = self.visit(&all.iter_range);
        let accumulated = self.visit(&all.accu_init);
        let depth = self.bound.len();
        self.bound.push((all.accu_var.clone(), accumulated.clone()));
        let own = match &range {
            Type::List(items) => (**items).clone(),
            Type::Map(keys, _) => (**keys).clone(),
            Type::Dyn | Type::Error => Type::Dyn,
            Type::Free(_) => {
                self.fits(&Type::Dyn, &range);
                Type::Dyn
            }
            other => {
                let other = self.shown(other);
                let why = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.wrong(all.iter_range.id, why)
            }
        };
        self.bound.push((all.iter_var.clone(), own));
        let condition = self.visit(&all.loop_cond);
        self.expect(all.loop_cond.id, &Type::Bool, &condition);
        let step = self.visit(&all.loop_step);
        self.expect(all.loop_step.id, &accumulated, &step);
        self.bound.truncate(depth + 1);
        let result = self.visit(&all.result);
        self.bound.truncate(depth);
        result
    }
}

fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}

/// `a.b.c`, where an expression is nothing else.
fn qualified_name(expression: &Expression) -> Option<String> {
    match &expression.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", qualified_name(&select.operand)?, select.field)),
        _ => None,
    }
}
