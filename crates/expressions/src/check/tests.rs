use super::*;
use crate::environment::compile;

fn scope() -> Scope {
    let inner = Type::object("self.inner", [("flag", Type::Bool), ("at", Type::Timestamp), ("any", Type::Dyn)]);
    let own = Type::object(
        "self",
        [
            ("n", Type::Int),
            ("x", Type::Double),
            ("name", Type::String),
            ("list", Type::list(Type::Int)),
            ("names", Type::list(Type::String)),
            ("map", Type::map(Type::String)),
            ("objects", Type::list(inner.clone())),
            ("inner", inner),
        ],
    );
    Scope::new([
        ("self", own),
        ("object", Type::Dyn),
        ("authorizer", Type::opaque("kubernetes.authorization.Authorizer")),
        ("authorizer.requestResource", Type::opaque("kubernetes.authorization.ResourceCheck")),
    ])
}

fn checked(source: &str) -> Result<String, String> {
    let program = compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    check(&program, &scope()).map(|found| found.to_string())
}

#[test]
fn expressions_have_types() {
    let table = |source: &str, expected: &str| assert_eq!(checked(source).as_deref(), Ok(expected), "{source}");
    table("self.n + 1 > 2 && self.x < 3 && !self.inner.flag", "bool");
    table("self.list.map(i, string(i))", "list(string)");
    table("self.list.filter(i, i > 1).sum() + self.list[0]", "int");
    table("self.names.all(s, s.startsWith('a')) ? self.names : []", "list(string)");
    table("self.map['a'] + self.map.b", "string");
    table("self.map.map(k, self.map[k])", "list(string)");
    table("self.objects.exists(o, o.flag && o.any > 3)", "bool");
    table("self.inner.at - duration('1h') > timestamp('2020-01-01T00:00:00Z')", "bool");
    table("self.inner.at - self.inner.at", "duration");
    table("self.?name.orValue('none')", "string");
    table("self.?inner.at", "optional_type(timestamp)");
    table("self.list[?0].hasValue() && self.map[?'x'].orValue('') == ''", "bool");
    table("optional.of(1).optMap(v, v + 1).value()", "int");
    table("[1, 2].sortBy(e, -e)", "list(int)");
    table("cel.bind(n, self.n, n + n)", "int");
    table("object.anything.at[0].all(x, x == 1)", "bool");
    table("object.x", "dyn");
    table("object.x + 1", "int");
    table(
        "type(self.n) == int && type(object.x) == string && type(self.inner.at) == google.protobuf.Timestamp",
        "bool",
    );
    table("authorizer.path('/').check('get').allowed() && authorizer.requestResource.check('get').allowed()", "bool");
    table("quantity(self.name).add(quantity('1')).isGreaterThan(quantity('1'))", "bool");
    table("cidr('10.0.0.0/8').containsIP(ip(self.name)) && ip.isCanonical(self.name)", "bool");
    table("format.dns1123Label().validate(self.name).orValue([])", "list(string)");
    table("sets.contains(self.list, [1]) && semver(self.name).major() == 1", "bool");
    table("url(self.name).getQuery()['a'][0]", "string");
    table("self.list.all(i, v, v > i) && self.map.exists(k, v, k == v)", "bool");
    table("self.map.transformMap(k, v, size(v))", "map(string, int)");
    table("self.map.transformMapEntry(k, v, {v: 1})", "map(string, int)");
    table("self.list.transformList(i, v, i > 0, string(v))", "list(string)");
    table("'%s is %d'.format([self.name, self.n])", "string");
    table("has(self.name) && has(self.inner.any.x)", "bool");
    table("self.inner == null || self.inner.at != null", "bool");
    table("'%s'.format([[self.n, object.x, {'a': 1, 'b': ''}]])", "string");
    table("{'a': self.n, ?'b': self.list[?0]}", "map(string, int)");
}

#[test]
fn what_cannot_be_is_found_at_its_place() {
    let table = |source: &str, expected: &[&str]| {
        let wrong = checked(source).expect_err(source);
        let lines: Vec<&str> = wrong.lines().filter_map(|line| line.strip_prefix("ERROR: <input>:")).collect();
        assert_eq!(lines, expected, "{source}");
    };
    table("self.n == 'x'", &["1:8: found no matching overload for '_==_' applied to '(int, string)'"]);
    table("self.missing > 1", &["1:5: undefined field 'missing'"]);
    table("has(self.inner.missing)", &["1:4: undefined field 'missing'"]);
    table("self.name.startsWith(1)", &["1:21: found no matching overload for 'startsWith' applied to 'string.(int)'"]);
    table("self.name + self.n == ''", &["1:11: found no matching overload for '_+_' applied to '(string, int)'"]);
    table("self.n && true", &["1:5: expected type 'bool' but found 'int'"]);
    table("nothing.x", &["1:1: undeclared reference to 'nothing' (in container '')"]);
    table("self.n.x", &["1:7: type 'int' does not support field selection"]);
    table("self.lowerUnicode()", &["1:18: undeclared reference to 'lowerUnicode' (in container '')"]);
    table(
        "sets.like([1])",
        &[
            "1:1: undeclared reference to 'sets' (in container '')",
            "1:10: undeclared reference to 'like' (in container '')",
        ],
    );
    table("[self.n, object.x]", &["1:16: expected type 'int' but found 'dyn'"]);
    table("[1, 'a']", &["1:5: expected type 'int' but found 'string'"]);
    table("{'a': 1, 'b': 'c'}", &["1:15: expected type 'int' but found 'string'"]);
    table(
        "self.n.all(i, i)",
        &["1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"],
    );
    table("self.list.all(i, i)", &["1:18: expected type 'bool' but found 'int'"]);
    table("self.list.all(i, i > 'a')", &["1:20: found no matching overload for '_>_' applied to '(int, string)'"]);
    table(
        "self.objects.all(o, o.none == 1 && o.at < 3)",
        &["1:22: undefined field 'none'", "1:41: found no matching overload for '_<_' applied to '(timestamp, int)'"],
    );
    table(
        "self.list.all(i, v, v.startsWith('a'))",
        &["1:33: found no matching overload for 'startsWith' applied to 'int.(string)'"],
    );
    table(
        "self.list.transformList(i, v, v) == ['a']",
        &["1:34: found no matching overload for '_==_' applied to '(list(int), list(string))'"],
    );
    table("true &&\n  self.n > 'x'", &["2:10: found no matching overload for '_>_' applied to '(int, string)'"]);
    table("duration('x') > duration('1s')", &["1:10: invalid duration argument"]);
    table("timestamp('x') == self.inner.at", &["1:11: invalid timestamp argument"]);
    table("self.name.matches('(')", &["1:19: invalid matches argument"]);
    table(
        "self.?inner.at.orValue(1) == 1",
        &["1:23: found no matching overload for 'orValue' applied to 'optional_type(timestamp).(int)'"],
    );
    table(
        "self.inner == self.objects",
        &["1:12: found no matching overload for '_==_' applied to '(self.inner, list(self.inner))'"],
    );
}

#[test]
fn a_mistake_is_shown_in_its_line() {
    let wrong = checked("self.n == 1 &&\n\tself.name == 'ö' && self.no").unwrap_err();
    assert_eq!(
        wrong,
        "ERROR: <input>:2:26: undefined field 'no'\n |  self.name == 'ö' && self.no\n | ...............．.........^"
    );
}

#[test]
fn what_types_cost_is_bounded() {
    // Each level doubles the type.
    let levels = 12;
    let opening: String = (1..levels).map(|level| format!("cel.bind(x{level}, {{x{0}: x{0}}}, ", level - 1)).collect();
    let closing = ")".repeat(levels - 1);
    let source = format!("cel.bind(x0, self.n, {opening}size(x{}) == 1{closing})", levels - 1);
    assert_eq!(checked(&source).as_deref(), Ok("bool"));
    let long = vec!["self.list[0] == self.list[1]"; 120].join(" || ");
    assert_eq!(checked(&long).as_deref(), Ok("bool"));
    for source in [
        vec!["1"; 1500].join("+"),
        vec!["1"; 4000].join("+"),
        vec!["true"; 2500].join("||"),
        "self.n".to_owned() + &".x".repeat(4000),
    ] {
        let error = compile(&source).map(|_| ()).unwrap_err();
        assert!(error.ends_with("expression recursion limit exceeded: 250"), "{error}");
    }
}
