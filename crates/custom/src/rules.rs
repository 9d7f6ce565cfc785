//! `x-kubernetes-validations`: rules about values in CEL, compiled once and evaluated with a bound.
//!
//! What an evaluation costs is reckoned from the sizes of the values before it begins, since an evaluation cannot be
//! stopped. Invariant: neither the size of a rule nor that of an object makes work without bound.
// DIVERGES: upstream counts what an evaluation does; here is reckoned what it may do at most.

mod cost;
mod types;
mod values;

use std::sync::{Arc, OnceLock};

use cel::common::types::CelOptional;
use cel::{Context, Program, Value as Outcome};
use kedge_expressions::{CALL_LIMIT, compile, environment, error_text, evaluate};
use kedge_meta::{FieldError, FieldPath};
use serde_json::Value;

use crate::check::{correlated, key_of};
use crate::json::{items, text, truth};
use crate::node::{Additional, Node};
use crate::place::Place;
use crate::timing::Timing;

pub(crate) use cost::estimate;
pub(crate) use types::scope;

/// Upstream's bound of all evaluations about one object.
const OBJECT_LIMIT: u64 = 10_000_000;
/// How long a text that an expression makes may be.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// The rules of one position.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    source: String,
    message: String,
    reason: String,
    field_path: String,
    message_source: String,
    optional_old: bool,
    compiled: OnceLock<Compiled>,
}

/// A rule that was needed.
#[derive(Debug, Clone)]
struct Compiled {
    uses_old: bool,
    program: Result<Arc<Program>, String>,
    message: Option<Arc<Program>>,
}

impl Rules {
    /// Reads the rules of a schema.
    pub(crate) fn read(schema: &Value) -> Self {
        Self(items(schema, &["x-kubernetes-validations"]).iter().map(Rule::read).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let words = |field: &str| text(rule, &[field]).trim().to_owned();
        Self {
            source: words("rule"),
            message: words("message"),
            reason: words("reason"),
            field_path: words("fieldPath"),
            message_source: words("messageExpression"),
            optional_old: truth(rule, &["optionalOldSelf"]),
            compiled: OnceLock::new(),
        }
    }

    fn compiled(&self, timing: &dyn Timing) -> &Compiled {
        self.compiled.get_or_init(|| {
            let mut compiled = None;
            timing.compile(&mut || compiled = Some(self.compile()));
            compiled.unwrap_or_else(|| self.compile())
        })
    }

    fn compile(&self) -> Compiled {
        let program = compile(&self.source);
        let message = Some(&self.message_source).filter(|source| !source.is_empty());
        Compiled {
            uses_old: program.as_ref().is_ok_and(|program| program.references().variables().contains(&"oldSelf")),
            program: program.map(Arc::new),
            message: message.and_then(|source| compile(source).ok()).map(Arc::new),
        }
    }

    /// What is said of a value that does not meet the rule.
    fn said(&self) -> String {
        match self.message.is_empty() {
            true => format!("failed rule: {}", self.source),
            false => self.message.clone(),
        }
    }
}

/// Checks an object against the rules of its schema.
pub(crate) struct Checker<'a> {
    budget: u64,
    errors: &'a mut Vec<FieldError>,
    timing: &'a dyn Timing,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(errors: &'a mut Vec<FieldError>, timing: &'a dyn Timing) -> Self {
        Self { budget: OBJECT_LIMIT, errors, timing }
    }

    /// Visits a position; `old` is what stood there before, and `kept` says that it is within what has not changed.
    pub(crate) fn visit(&mut self, value: &Value, old: Option<&Value>, kept: bool, node: &Node, place: &Place<'_>) {
        if !node.holds_rules || value.is_null() {
            return;
        }
        let kept = kept || old == Some(value);
        if !node.rules.is_empty() {
            let (timing, old) = (self.timing, old.filter(|old| !old.is_null()));
            timing.evaluate(&mut || self.evaluate_all(value, old, kept, node, place));
        }
        match value {
            Value::Object(fields) => {
                let old = old.filter(|_| !node.atomic_map);
                for (name, value) in fields {
                    let old = old.and_then(|old| old.get(name));
                    match (node.properties.get(name), &node.additional) {
                        (Some(property), _) => self.visit(value, old, kept, property, &place.child(name)),
                        (None, Additional::Schema(values)) => self.visit(value, old, kept, values, &place.key(name)),
                        _ => {}
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &node.items else { return };
                let before = correlated(old, node);
                for (index, item) in list.iter().enumerate() {
                    let old = before.as_ref().and_then(|before| before.get(&key_of(item, node)).copied());
                    self.visit(item, old, kept, items, &place.index(index));
                }
            }
            _ => {}
        }
    }

    fn evaluate_all(&mut self, value: &Value, old: Option<&Value>, kept: bool, node: &Node, place: &Place<'_>) {
        for rule in &node.rules.0 {
            let uses_old = rule.compiled(self.timing).uses_old;
            if uses_old && old.is_none() && !rule.optional_old {
                continue;
            }
            let Some(error) = self.evaluate(rule, value, old, node, place) else { continue };
            // What has not changed may stay as it is; what a change has to meet may not.
            if uses_old || !kept {
                self.errors.push(error);
            }
        }
    }

    fn evaluate(
        &mut self,
        rule: &Rule,
        value: &Value,
        old: Option<&Value>,
        node: &Node,
        place: &Place<'_>,
    ) -> Option<FieldError> {
        let kind = Value::from(node.kind.as_str());
        let invalid = |why: String| Some(FieldError::invalid(&place.path(), &kind, &why));
        let program = match &rule.compiled(self.timing).program {
            Ok(program) => program,
            Err(error) => return invalid(format!("rule compile error: {error}")),
        };
        if self.budget == 0 {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            return invalid(why.to_owned());
        }
        let cost = cost::reckon(program.expression(), value, old);
        self.budget = self.budget.saturating_sub(cost);
        if cost > CALL_LIMIT {
            self.budget = 0;
            return invalid(format!(
                "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call \
                 cost exceeds limit for rule: {}",
                rule.said()
            ));
        }
        let context = context(rule, value, old, node);
        match evaluate(program.expression(), &context) {
            Ok(Outcome::Bool(true)) => None,
            Ok(Outcome::Bool(false)) => Some(failure(rule, &self.message(rule, &context), value, &kind, place)),
            Ok(_) => invalid(format!("cel expression evaluated to no bool for rule: {}", rule.said())),
            Err(error) => invalid(format!("{} evaluating rule: {}", error_text(&error), rule.said())),
        }
    }

    fn message(&self, rule: &Rule, context: &Context<'_, '_>) -> String {
        let made = rule
            .compiled(self.timing)
            .message
            .as_ref()
            .and_then(|program| evaluate(program.expression(), context).ok());
        match made {
            Some(Outcome::String(text)) => {
                let text = text.trim();
                let fits = !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains(['\n', '\r']);
                if fits { text.to_owned() } else { rule.said() }
            }
            _ => rule.said(),
        }
    }
}

fn context<'v>(rule: &Rule, value: &Value, old: Option<&Value>, node: &Node) -> Context<'static, 'v> {
    let mut context = Context::with_env(environment());
    context.add_variable_as_val("self", values::value(value, node));
    let old = old.map(|old| values::value(old, node));
    if rule.optional_old {
        let old = old.map_or_else(CelOptional::none, CelOptional::of);
        context.add_variable_as_val("oldSelf", Box::new(old));
    } else if let Some(old) = old {
        context.add_variable_as_val("oldSelf", old);
    }
    context
}

fn failure(rule: &Rule, message: &str, value: &Value, kind: &Value, place: &Place<'_>) -> FieldError {
    let path = below(place, &rule.field_path);
    match rule.reason.as_str() {
        "FieldValueRequired" => FieldError::required(&path, message),
        "FieldValueForbidden" => FieldError::forbidden(&path, message),
        "FieldValueDuplicate" => FieldError::duplicate(&path, value),
        _ => FieldError::invalid(&path, kind, message),
    }
}

/// The place that a rule's `fieldPath` names.
fn below(place: &Place<'_>, path: &str) -> FieldPath {
    let plain = path.replace("['", ".").replace("']", "");
    plain.split('.').filter(|name| !name.is_empty()).fold(place.path(), |path, name| path.child(name))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;
    use crate::timing::Untimed;

    /// Counts what is compiled and what is evaluated.
    #[derive(Debug, Default)]
    struct Counting([AtomicUsize; 2]);

    impl Timing for Counting {
        fn compile(&self, work: &mut dyn FnMut()) {
            self.0[0].fetch_add(1, Ordering::Relaxed);
            work();
        }

        fn evaluate(&self, work: &mut dyn FnMut()) {
            self.0[1].fetch_add(1, Ordering::Relaxed);
            work();
        }
    }

    #[test]
    fn work_is_done_by_whoever_has_a_clock() {
        let rule = |rule: &str| json!([{"rule": rule}]);
        let items = json!({"type": "integer", "x-kubernetes-validations": rule("self > 0")});
        let list = json!({"type": "array", "items": items});
        let node = Node::read(&json!({"type": "object", "x-kubernetes-validations": rule("size(self.list) > 1"),
            "properties": {"list": list}}));
        let (counting, mut errors) = (Counting::default(), Vec::new());
        for value in [json!({"list": [1, 2]}), json!({"list": [0, 1]})] {
            Checker::new(&mut errors, &counting).visit(&value, None, false, &node, &Place::ROOT);
        }
        assert_eq!(counting.0.map(AtomicUsize::into_inner), [2, 6]);
        assert_eq!(errors.len(), 1, "{errors:?}");
    }

    #[track_caller]
    fn table(schema: Value, value: Value, old: Option<Value>, expected: &[&str]) {
        let (mut errors, node) = (Vec::new(), Node::read(&schema));
        Checker::new(&mut errors, &Untimed).visit(&value, old.as_ref(), false, &node, &Place::ROOT.child("spec"));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected);
    }

    fn numbers(rules: Value) -> Value {
        json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
            "x": {"type": "integer"}, "y": {"type": "integer"}, "name": {"type": "string"}, "a-b": {"type": "string"},
            "list": {"type": "array", "items": {"type": "integer"}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}}}})
    }

    #[test]
    fn values_meet_their_rules() {
        let check = |rule: &str, value: Value, expected: &[&str]| {
            table(numbers(json!([{"rule": rule, "message": "no"}])), value, None, expected);
        };
        const NO: &[&str] = &["spec: Invalid value: \"object\": no"];
        check("self.x + self.y > 0", json!({"x": 1, "y": 0}), &[]);
        check("self.x + self.y > 0", json!({"x": 0, "y": 0}), NO);
        check("has(self.x)", json!({}), NO);
        check("!has(self.x) || self.x in [1, 2]", json!({"x": 3}), NO);
        check(
            "self.list.all(i, i > 0) && self.list.isSorted() && self.list.sum() == 6",
            json!({"list": [1, 2, 3]}),
            &[],
        );
        check("self.list.isSorted()", json!({"list": [2, 1]}), NO);
        check(
            "self.list.min() == 1 && self.list.max() == 3 && self.list.indexOf(3) == 1",
            json!({"list": [1, 3]}),
            &[],
        );
        check("self.name.startsWith('a') && self.name.matches('^[a-z]+$')", json!({"name": "abc"}), &[]);
        check("self.name.find('[0-9]+') == '12'", json!({"name": "a12"}), &[]);
        check("self.map.all(k, self.map[k] != 'x')", json!({"map": {"a": "x"}}), NO);
        check("self.a__dash__b == 'x'", json!({"a-b": "x"}), &[]);
        check("self.?name.orValue('none') == 'none'", json!({}), &[]);
        check("cel.bind(n, self.x, n + n == 4)", json!({"x": 2}), &[]);
        check("quantity(self.name).isLessThan(quantity('1Gi'))", json!({"name": "1Mi"}), &[]);
        check("isURL(self.name) && url(self.name).getScheme() == 'https'", json!({"name": "http://a/"}), NO);
        check("cidr('10.0.0.0/8').containsIP(self.name)", json!({"name": "10.1.2.3"}), &[]);
        check("!format.dns1123Label().validate(self.name).hasValue()", json!({"name": "A"}), NO);
        check("semver(self.name).major() == 1", json!({"name": "1.2.3"}), &[]);
        check("sets.contains([1, 2, 3], self.list)", json!({"list": [4]}), NO);
        check("self.x > 0", json!({}), &["spec: Invalid value: \"object\": no such key: x evaluating rule: no"]);
    }

    #[test]
    fn formats_are_types() {
        let schema = |rule: &str| {
            json!({"type": "object", "x-kubernetes-validations": [{"rule": rule, "message": "no"}], "properties": {
            "at": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
            "long": {"type": "string", "format": "duration"}, "data": {"type": "string", "format": "byte"}}})
        };
        let check = |rule: &str| {
            let value = json!({"at": "2020-01-01T12:00:00Z", "day": "2020-01-01", "long": "12h", "data": "aGk="});
            table(schema(rule), value, None, &[]);
        };
        check("self.at == self.day + self.long && self.at - timestamp('2020-01-01T00:00:00Z') == self.long");
        check("self.at.getHours() == 12 && self.at.getHours('Europe/Berlin') == 13 && self.long.getMinutes() == 720");
        check("self.data == b'hi' && string(self.data) == 'hi' && self.data.size() == 2");
        check("[self.at, self.day].max() == self.at && string(self.at) == '2020-01-01T12:00:00Z'");
    }

    #[test]
    fn lists_compare_as_their_types_say() {
        let list = |more: Value| {
            let mut list = json!({"type": "array", "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "no"}, {"rule": "(self + oldSelf).size() == 2", "message": "more"}]});
            list.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"type": "object", "properties": {"l": list}})
        };
        let check = |schema: &Value, new: Value, old: Value, expected: &[&str]| {
            let errors: Vec<String> =
                expected.iter().map(|text| format!("spec.l: Invalid value: \"array\": {text}")).collect();
            let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
            table(schema.clone(), json!({"l": new}), Some(json!({"l": old})), &errors);
        };
        let set = list(json!({"x-kubernetes-list-type": "set", "items": {"type": "string"}}));
        check(&set, json!(["a", "b"]), json!(["b", "a"]), &[]);
        check(&set, json!(["a", "c"]), json!(["b", "a"]), &["no", "more"]);
        let item = json!({"type": "object", "required": ["k-ey"], "properties": {
            "k-ey": {"type": "string"}, "v": {"type": "integer"}}});
        let map = list(json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k-ey"], "items": item}));
        let (one, two) = (|v: i64| json!({"k-ey": "a", "v": v}), || json!({"k-ey": "b"}));
        check(&map, json!([one(1), two()]), json!([two(), one(1)]), &[]);
        check(&map, json!([one(1), two()]), json!([two(), one(2)]), &["no"]);
        let plain = list(json!({"items": {"type": "string"}}));
        check(&plain, json!(["a", "b"]), json!(["b", "a"]), &["no", "more"]);
    }

    #[test]
    fn rules_say_what_is_wrong_and_where() {
        let check = |rule: Value, expected: &[&str]| table(numbers(json!([rule])), json!({"x": 1}), None, expected);
        check(json!({"rule": "self.x > 1"}), &["spec: Invalid value: \"object\": failed rule: self.x > 1"]);
        check(
            json!({"rule": "self.x > 1", "messageExpression": "'x is ' + string(self.x)", "fieldPath": ".x"}),
            &["spec.x: Invalid value: \"object\": x is 1"],
        );
        check(
            json!({"rule": "self.x > 1", "message": "no", "reason": "FieldValueForbidden"}),
            &["spec: Forbidden: no"],
        );
    }

    #[test]
    fn changes_meet_rules_about_changes() {
        let check = |rule: Value, value: Value, old: Option<Value>, expected: &[&str]| {
            let schema =
                json!({"type": "object", "properties": {"n": {"type": "integer", "x-kubernetes-validations": [rule]}}});
            table(schema, value, old, expected);
        };
        let rises = || json!({"rule": "self > oldSelf"});
        check(rises(), json!({"n": 1}), None, &[]);
        check(rises(), json!({"n": 2}), Some(json!({"n": 1})), &[]);
        const FAILED: &[&str] = &["spec.n: Invalid value: \"integer\": failed rule: self > oldSelf"];
        check(rises(), json!({"n": 1}), Some(json!({"n": 1})), FAILED);
        let optional =
            json!({"rule": "!oldSelf.hasValue() || oldSelf.value() < self", "optionalOldSelf": true, "message": "no"});
        check(optional.clone(), json!({"n": 1}), None, &[]);
        check(optional, json!({"n": 1}), Some(json!({"n": 2})), &["spec.n: Invalid value: \"integer\": no"]);
        let plain = json!({"rule": "self > 5", "message": "no"});
        check(plain.clone(), json!({"n": 1}), Some(json!({"n": 1})), &[]);
        check(plain, json!({"n": 1}), Some(json!({"n": 2})), &["spec.n: Invalid value: \"integer\": no"]);
    }

    #[test]
    fn work_is_bounded() {
        let schema = numbers(json!([{"rule": "self.list.all(x, self.list.all(y, y == x))"}]));
        table(schema.clone(), json!({"list": [1, 1]}), None, &[]);
        table(
            schema,
            json!({"list": vec![1; 725]}),
            None,
            &[
                "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will \
             be run due to call cost exceeds limit for rule: failed rule: self.list.all(x, self.list.all(y, y == x))",
            ],
        );
    }
}
