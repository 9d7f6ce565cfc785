//! Names in expressions that mean nothing: functions that there are not, variables that nobody gives.

use std::collections::BTreeSet;

use cel::common::ast::{EntryExpr, Expr};
use cel::parser::Expression;

/// Functions that expressions may call, besides operators and those that begin with the name of a library.
const FUNCTIONS: &[&str] = &[
    "add",
    "all",
    "allowed",
    "asApproximateFloat",
    "asInteger",
    "bool",
    "bytes",
    "charAt",
    "check",
    "cidr",
    "compareTo",
    "contains",
    "containsCIDR",
    "containsIP",
    "distinct",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "error",
    "errored",
    "exists",
    "exists_one",
    "family",
    "fieldSelector",
    "filter",
    "find",
    "findAll",
    "flatten",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getQuery",
    "getScheme",
    "getSeconds",
    "group",
    "has",
    "hasValue",
    "indexOf",
    "int",
    "ip",
    "isCIDR",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "isUnspecified",
    "join",
    "labelSelector",
    "lastIndexOf",
    "lowerAscii",
    "major",
    "map",
    "masked",
    "matches",
    "max",
    "min",
    "minor",
    "name",
    "namespace",
    "optFlatMap",
    "optMap",
    "or",
    "orValue",
    "patch",
    "path",
    "prefixLength",
    "quantity",
    "quote",
    "reason",
    "replace",
    "resource",
    "reverse",
    "semver",
    "serviceAccount",
    "sign",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "sub",
    "subresource",
    "substring",
    "sum",
    "timestamp",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "url",
    "validate",
    "value",
];

/// Functions by the library whose name stands before them.
const LIBRARIES: &[(&str, &[&str])] = &[
    (
        "format",
        &[
            "byte",
            "date",
            "datetime",
            "dns1035Label",
            "dns1035LabelPrefix",
            "dns1123Label",
            "dns1123LabelPrefix",
            "dns1123Subdomain",
            "dns1123SubdomainPrefix",
            "labelValue",
            "named",
            "qualifiedName",
            "uri",
            "uuid",
        ],
    ),
    ("ip", &["isCanonical"]),
    ("jsonpatch", &["escapeKey"]),
    ("lists", &["range"]),
    ("optional", &["none", "of", "ofNonZeroValue"]),
    ("sets", &["contains", "equivalent", "intersects"]),
    ("strings", &["quote"]),
];

/// Types that may be named.
const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
    "kubernetes",
    "net",
    "google",
];

/// What the names of an expression refer to that is not there, one text for each, sorted. `variables` are those that are
/// given; absent where only functions are looked at.
pub fn unknown_names(expression: &Expression, variables: Option<&[&str]>) -> Vec<String> {
    let mut found = BTreeSet::new();
    Search { given: variables, found: &mut found }.visit(expression, &[]);
    found.into_iter().map(|name| format!("undeclared reference to '{name}' (in container '')")).collect()
}

/// Shows an expression and everything within it.
pub(crate) fn walk(expression: &Expression, visit: &mut dyn FnMut(&Expression)) {
    visit(expression);
    let mut parts = |list: &mut dyn Iterator<Item = &Expression>| list.for_each(|part| walk(part, visit));
    match &expression.expr {
        Expr::Select(select) => parts(&mut std::iter::once(&*select.operand)),
        Expr::Call(call) => parts(&mut call.target.iter().map(|target| &**target).chain(&call.args)),
        Expr::Comprehension(all) => {
            let all = [&all.iter_range, &all.accu_init, &all.loop_cond, &all.loop_step, &all.result];
            parts(&mut all.into_iter());
        }
        Expr::List(list) => parts(&mut list.elements.iter()),
        Expr::Map(map) => parts(&mut map.entries.iter().flat_map(|entry| entry_parts(&entry.expr))),
        Expr::Struct(of) => parts(&mut of.entries.iter().flat_map(|entry| entry_parts(&entry.expr))),
        _ => {}
    }
}

/// Shows each `name.field` within an expression.
pub fn walk_selects(expression: &Expression, visit: &mut dyn FnMut(&str, &str)) {
    walk(expression, &mut |part| {
        if let Expr::Select(select) = &part.expr
            && let Expr::Ident(name) = &select.operand.expr
        {
            visit(name, &select.field);
        }
    });
}

/// The expressions of an entry of a map or an object.
pub(crate) fn entry_parts(entry: &EntryExpr) -> Vec<&Expression> {
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

struct Search<'a> {
    given: Option<&'a [&'a str]>,
    found: &'a mut BTreeSet<String>,
}

impl Search<'_> {
    fn visit(&mut self, expression: &Expression, bound: &[&str]) {
        match &expression.expr {
            Expr::Ident(name) => self.variable(name, bound),
            Expr::Select(select) => self.visit(&select.operand, bound),
            Expr::Call(call) => {
                let target = call.target.as_deref();
                let library = target.and_then(|target| library(target, bound));
                let name = call.func_name.as_str();
                let is_word = name.starts_with(|letter: char| letter.is_ascii_alphabetic());
                if is_word && !is_known(name, library) {
                    let prefix = library.map(|library| format!("{library}.")).unwrap_or_default();
                    self.found.insert(format!("{prefix}{name}"));
                }
                if let (Some(target), None) = (target, library) {
                    self.visit(target, bound);
                }
                call.args.iter().for_each(|arg| self.visit(arg, bound));
            }
            Expr::Comprehension(all) => {
                self.visit(&all.iter_range, bound);
                self.visit(&all.accu_init, bound);
                let mut inner = bound.to_vec();
                inner.extend([all.accu_var.as_str(), all.iter_var.as_str()]);
                inner.extend(all.iter_var2.as_deref());
                [&all.loop_cond, &all.loop_step, &all.result].into_iter().for_each(|part| self.visit(part, &inner));
            }
            Expr::List(list) => list.elements.iter().for_each(|part| self.visit(part, bound)),
            Expr::Map(map) => self.entries(map.entries.iter().map(|entry| &entry.expr), bound),
            Expr::Struct(of) => self.entries(of.entries.iter().map(|entry| &entry.expr), bound),
            _ => {}
        }
    }

    fn entries<'e>(&mut self, entries: impl Iterator<Item = &'e EntryExpr>, bound: &[&str]) {
        entries.flat_map(entry_parts).for_each(|part| self.visit(part, bound));
    }

    fn variable(&mut self, name: &str, bound: &[&str]) {
        let Some(given) = self.given else { return };
        // What macros make up begins with a sign.
        let is_own = name.starts_with(['@', '#']) || bound.contains(&name);
        if !is_own && !given.contains(&name) && !TYPES.contains(&name) {
            self.found.insert(name.to_owned());
        }
    }
}

/// The library that a call's target names.
fn library<'a>(target: &'a Expression, bound: &[&str]) -> Option<&'a str> {
    match &target.expr {
        Expr::Ident(name) if !bound.contains(&name.as_str()) => {
            LIBRARIES.iter().any(|(library, _)| library == name).then_some(name.as_str())
        }
        _ => None,
    }
}

fn is_known(name: &str, library: Option<&str>) -> bool {
    let Some(library) = library else { return FUNCTIONS.contains(&name) };
    LIBRARIES.iter().any(|(own, functions)| *own == library && functions.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::compile;

    #[test]
    fn names_that_mean_nothing_are_found() {
        let check = |source: &str, expected: &[&str]| {
            let program = compile(source).unwrap();
            let expected: Vec<String> =
                expected.iter().map(|name| format!("undeclared reference to '{name}' (in container '')")).collect();
            assert_eq!(unknown_names(program.expression(), Some(&["object", "variables"])), expected, "{source}");
        };
        check("object.spec.x > 1 && variables.y", &[]);
        check("object.list.all(x, x > 0) && x", &["x"]);
        check("nothing.x == 1", &["nothing"]);
        check("lowerUnicode(object.x)", &["lowerUnicode"]);
        check("object.x.isSortedBy()", &["isSortedBy"]);
        check("cel.bind(n, object.x, n + m)", &["m"]);
        check("sets.contains([1], [1]) && sets.like([1])", &["sets.like"]);
        check("format.dns1123Label().validate(object.x).hasValue()", &[]);
        check("object.format.startsWith('a') && 'a%s'.format([object.x]) != ''", &[]);
        check("{'a': object.x, b: 1}", &["b"]);
        check("object.?x.orValue(1) == 1 && type(object) == map", &[]);
    }
}
