//! `cel.bind(name, value, expression)`: a name for a value within one expression.

use cel::common::ast::{ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue};
use cel::common::types::CelBool;
use cel::parser::{Macro, MacroExprHelper};
use cel::{DeclarationError, Env};

pub(crate) fn declare(environment: &mut Env) -> Result<(), DeclarationError> {
    environment.add_macro(Macro::receiver("bind", 3, |helper, target, args| {
        let is_cel = |target: &IdedExpr| matches!(&target.expr, Expr::Ident(name) if name == "cel");
        let Expr::Ident(name) = &args[0].expr else { return Ok(None) };
        if !target.as_ref().is_some_and(is_cel) {
            return Ok(None);
        }
        let name = name.clone();
        let mut rest = args.drain(1..);
        let (Some(value), Some(result)) = (rest.next(), rest.next()) else { return Ok(None) };
        Ok(Some(bound(helper, name, value, result)))
    }))
}

/// An expression within which a name is bound: a loop over nothing, whose result is evaluated with the name, as the
/// specification's extension does.
pub(crate) fn bound(helper: &mut MacroExprHelper<'_>, name: String, value: IdedExpr, result: IdedExpr) -> IdedExpr {
    let bound = ComprehensionExpr {
        iter_range: helper.next_expr(Expr::List(ListExpr::new(Vec::new()))),
        iter_var: "#unused".to_owned(),
        iter_var2: None,
        accu_var: name.clone(),
        accu_init: value,
        loop_cond: helper.next_expr(Expr::Literal(LiteralValue::Boolean(CelBool::from(false)))),
        loop_step: helper.next_expr(Expr::Ident(name)),
        result,
    };
    helper.next_expr(Expr::Comprehension(Box::new(bound)))
}
