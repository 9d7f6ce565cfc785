use serde_json::json;

use super::*;

fn value(text: &str) -> Result<Value, String> {
    let prefix = "error converting YAML to JSON: yaml: ";
    let read = read(text.as_bytes());
    read.map(|read| read.value).map_err(|error| error.to_string().strip_prefix(prefix).unwrap_or_default().to_owned())
}

#[track_caller]
fn reads(text: &str, expected: Value) {
    assert_eq!(value(text), Ok(expected), "{text}");
}

#[track_caller]
fn fails(text: &str, why: &str) {
    assert_eq!(value(text), Err(why.to_owned()), "{text}");
}

#[test]
fn words_are_what_upstream_takes_them_for() {
    for yes in ["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"] {
        reads(yes, json!(true));
        reads(&format!("'{yes}'"), json!(yes));
    }
    for no in ["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"] {
        reads(no, json!(false));
        reads(&format!("\"{no}\""), json!(no));
    }
    for null in ["", "~", "null", "Null", "NULL", "# a comment", "---"] {
        reads(null, json!(null));
    }
    for text in
        ["yEs", "tRue", "nUll", "oN", "yes!", "1.2.3", "0x", "1:30", "190:20:30", "08:00", "1e", "e3", "+", ".", "--1"]
    {
        reads(&format!("a: {text}"), json!({"a": text}));
    }
}

#[test]
fn numbers_are_what_upstream_takes_them_for() {
    let check = |text: &str, expected: Value| reads(text, expected);
    check("12", json!(12));
    check("+12", json!(12));
    check("-12", json!(-12));
    check("0", json!(0));
    check("-0", json!(0));
    check("0777", json!(511));
    check("0o777", json!(511));
    check("0x1F", json!(31));
    check("-0x1f", json!(-31));
    check("0b101", json!(5));
    check("-0b101", json!(-5));
    check("1_000", json!(1000));
    check("0_7", json!(7));
    check("08", json!(8));
    check("9223372036854775807", json!(i64::MAX));
    check("-9223372036854775808", json!(i64::MIN));
    check("18446744073709551615", json!(u64::MAX));
    check("1.5", json!(1.5));
    check("1.0", json!(1));
    check("1e3", json!(1000));
    check("-1.5e-3", json!(-0.0015));
    check(".5", json!(0.5));
    check("5.", json!(5));
    check("1_0.5", json!(10.5));
    check("18446744073709551616", json!(18_446_744_073_709_551_616.0));
    fails(".nan", "json: unsupported value: NaN");
    fails(".inf", "json: unsupported value: +Inf");
    fails("-.inf", "json: unsupported value: -Inf");
}

#[test]
fn dates_stay_text() {
    for text in
        ["2001-12-14", "2001-1-2", "2001-12-14T21:59:43Z", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.10"]
    {
        reads(&format!("a: {text}"), json!({"a": text}));
    }
}

#[test]
fn tags_say_what_words_are() {
    reads("!!str 5", json!("5"));
    reads("!!str yes", json!("yes"));
    reads("!!int '5'", json!(5));
    reads("!!float 5", json!(5));
    reads("!!bool 'yes'", json!(true));
    reads("!!binary aGk=", json!("hi"));
    reads("!own 5", json!("5"));
    fails("!!int x", "cannot decode !!str `x` as a !!int");
    fails("!!bool 5", "cannot decode !!int `5` as a !!bool");
    fails("!!binary '*'", "!!binary value contains invalid base64 data");
}

#[test]
fn keys_become_text() {
    reads("1: a", json!({"1": "a"}));
    reads("yes: a", json!({"true": "a"}));
    reads("0x10: a", json!({"16": "a"}));
    reads("1.5: a", json!({"1.5": "a"}));
    reads("2001-01-01: a", json!({"2001-01-01": "a"}));
    fails("[a]: b", "invalid map key");
    fails("~: b", "unsupported map key of type: %!s(<nil>)");
}

#[test]
fn a_last_line_need_not_end() {
    for (text, value) in [
        ("a: |\n  text", "text"),
        ("a: |-\n  text", "text"),
        ("a: |+\n  text", "text"),
        ("a: >\n  one\n  two", "one two"),
        ("a: |\n  text\n  ", "text\n"),
        ("a: |+\n  text\n  ", "text\n"),
        ("a: |\n  text\n    ", "text\n  "),
        ("a: |\n  text\n# end", "text\n"),
        ("a: |", ""),
        ("a: 'text'", "text"),
    ] {
        reads(text, json!({"a": value}));
    }
}

#[test]
fn documents_have_structure() {
    reads("a:\n- 1\n- b: 2\n  c: [x, {w: z}]\n", json!({"a": [1, {"b": 2, "c": ["x", {"w": "z"}]}]}));
    reads("a: |\n  one\n  two\nb: >-\n  one\n  two\n", json!({"a": "one\ntwo\n", "b": "one two"}));
    reads("a: 'it''s'\nb: \"tab\\t\\u00e9\"\n", json!({"a": "it's", "b": "tab\té"}));
    reads("{\"a\": [1, true, null]}", json!({"a": [1, true, null]}));
    reads("a: 1\n---\nb: 2\n", json!({"a": 1}));
    reads("a: 1\n---\n}{ broken", json!({"a": 1}));
    reads("%YAML 1.1\n---\na: 1\n...\n", json!({"a": 1}));
    fails("a:\n\tb: 1\n", "line 2: found character that cannot start any token");
    fails("a: [1\nb: 2\n", "line 1: did not find expected ',' or ']'");
    fails("a: b: c", "mapping values are not allowed in this context");
    fails("x: 1\na: b: c", "line 2: mapping values are not allowed in this context");
}

#[test]
fn aliases_and_merges_are_followed() {
    reads("a: &x [1]\nb: *x\n", json!({"a": [1], "b": [1]}));
    reads("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  r: 3\n", json!({"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 2, "r": 3}}));
    reads("b:\n  <<: {p: 1}\n  p: 2\n", json!({"b": {"p": 2}}));
    // As upstream's parser has it, what is merged later wins.
    reads("b:\n  p: 2\n  <<: {p: 1}\n", json!({"b": {"p": 1}}));
    reads("b:\n  <<: [{p: 1}, {p: 2, q: 3}]\n", json!({"b": {"p": 1, "q": 3}}));
    reads("b: {'<<': {p: 1}}", json!({"b": {"<<": {"p": 1}}}));
    fails("<<: 1", "map merge requires map or sequence of maps as the value");
    fails("a: *none", "unknown anchor 'none' referenced");
    fails("a: &x [*x]", "anchor 'x' value contains itself");
}

#[test]
fn keys_that_stand_twice_are_noted() {
    let check = |text: &str, expected: &[&str]| {
        let duplicates = read(text.as_bytes()).unwrap().duplicates;
        assert_eq!(duplicates, expected, "{text}");
    };
    check("a: 1\nb: 2", &[]);
    check("a: 1\na: 2\n", &["line 2: key \"a\" already set in map"]);
    check(
        "a: {x: 1, x: 2}\nb:\n  y: 1\n  y:\n    z: 2\n",
        &["line 1: key \"x\" already set in map", "line 5: key true already set in map"],
    );
    check("<<: {a: 1}\na: 2\n", &["line 2: key \"a\" already set in map"]);
}

#[test]
fn what_documents_cost_is_bounded() {
    let error = read(&b"[".repeat(3 << 20)).unwrap_err();
    assert!(error.to_string().ends_with("too many brackets for its length"), "{error}");
    assert!(read(&b"- [a, {b: c}]\n".repeat(1000)).is_ok());
    assert!(read(&b"- [a]\n".repeat(400)).is_ok());
    let deep = format!("{}1{}", "[".repeat(600), "]".repeat(600));
    fails(&deep, "exceeded max depth");
    let levels = (0..9).map(|level| {
        let next = (0..9).map(|_| format!("*l{level}")).collect::<Vec<_>>().join(", ");
        format!("l{}: &l{} [{next}]\n", level + 1, level + 1)
    });
    let bomb = format!("l0: &l0 [lol]\n{}", levels.collect::<String>());
    fails(&bomb, "document contains excessive aliasing");
    let modest = format!("a: &a [1, 2]\nb: [{}]\n", vec!["*a"; 1000].join(", "));
    assert!(value(&modest).is_ok());
}

proptest::proptest! {
    #[test]
    fn no_input_is_too_much(text in "[ \\-:,\\[\\]{}&*!|>'\"#%@a-c0-9.~?<\\t\\n]{0,60}") {
        let _ = read(text.as_bytes());
    }

    #[test]
    fn json_is_yaml(document in crate::testing::any_json()) {
        let read = read(document.to_string().as_bytes()).unwrap().value;
        proptest::prop_assert_eq!(read, document);
    }
}
