//! What each library's functions come to: the examples of upstream's documentation.

use cel::{Context, Value};

use crate::environment::{compile, environment, error_text};

/// The outcome of an expression, as a text.
fn outcome(source: &str) -> String {
    let program = compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    match program.execute(&Context::with_env(environment())) {
        Ok(Value::Bool(yes)) => yes.to_string(),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("error: {}", error_text(&error)),
    }
}

#[track_caller]
fn holds(expressions: &[&str]) {
    for source in expressions {
        assert_eq!(outcome(source), "true", "{source}");
    }
}

#[track_caller]
fn fails(expressions: &[(&str, &str)]) {
    for (source, why) in expressions {
        let outcome = outcome(source);
        assert!(outcome.starts_with("error: ") && outcome.contains(why), "{source}: {outcome}");
    }
}

#[test]
fn quantities() {
    holds(&[
        r#"isQuantity("20") && isQuantity("20M") && isQuantity("20Mi") && !isQuantity("20Mo") && !isQuantity("10Mm")"#,
        r#"quantity("200M") == quantity("0.2G") && quantity("2000k") == quantity("2M")"#,
        r#"quantity("200M") != quantity("0.3G")"#,
        r#"quantity("50M").isLessThan(quantity("50Mi")) && !quantity("100M").isLessThan(quantity("50M"))"#,
        r#"quantity("50Mi").isGreaterThan(quantity("50M")) && !quantity("50M").isGreaterThan(quantity("100M"))"#,
        r#"quantity("50M").compareTo(quantity("50Mi")) == -1 && quantity("200M").compareTo(quantity("0.2G")) == 0"#,
        r#"quantity("50k").add(quantity("20")) == quantity("50.02k") && quantity("50k").sub(20) == quantity("49980")"#,
        r#"quantity("50k").add(20).sub(quantity("100k")).sub(-50000).asInteger() == 20"#,
        r#"quantity("50k").sign() == 1 && quantity("-1").sign() == -1 && quantity("0").sign() == 0"#,
        r#"quantity("500m").asApproximateFloat() == 0.5 && !quantity("500m").isInteger()"#,
    ]);
    fails(&[(r#"quantity("10Mo")"#, ""), (r#"quantity("500m").asInteger()"#, "cannot convert value to integer")]);
}

#[test]
fn urls() {
    holds(&[
        "isURL('https://user:pass@example.com:80/path?query=val#fragment') && isURL('/absolute-path')",
        "!isURL('https://a:b:c/') && !isURL('../relative-path') && !isURL('') && !isURL('https://[::1/')",
        "url('/path').getScheme() == '' && url('https://example.com/').getScheme() == 'https'",
        "url('https://example.com:80/').getHost() == 'example.com:80' && url('/path').getHost() == ''",
        "url('https://[::1]:80/').getHost() == '[::1]:80' && url('https://[::1]/').getHost() == '[::1]'",
        "url('https://example.com:80/').getHostname() == 'example.com' && url('/path').getHostname() == ''",
        "url('https://[::1]:80/').getHostname() == '::1' && url('https://127.0.0.1:80/').getHostname() == '127.0.0.1'",
        "url('https://example.com:80/').getPort() == '80' && url('https://example.com/').getPort() == ''",
        "url('https://example.com/path').getEscapedPath() == '/path' && url('https://example.com').getEscapedPath() == ''",
        "url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'",
        "url('https://example.com/path?k1=a&k2=b&k2=c').getQuery() == {'k1': ['a'], 'k2': ['b', 'c']}",
        "url('https://example.com/path?key with spaces=value with spaces').getQuery() == \
         {'key with spaces': ['value with spaces']}",
        "url('https://example.com/path?').getQuery() == {} && url('https://example.com/path').getQuery() == {}",
        "url('https://user:pass@example.com/#x').getHost() == 'example.com' && url('/a') == url('/a')",
    ]);
    fails(&[
        ("url('../relative-path')", "parse \"../relative-path\": invalid URI for request"),
        ("url('https://a:b:c/')", "invalid port \":b:c\" after host"),
        ("url('https://example.com/%zz')", "invalid URL escape \"%zz\""),
    ]);
}

#[test]
fn addresses() {
    holds(&[
        "isIP('127.0.0.1') && isIP('::1') && !isIP('127.0.0.256') && !isIP(':::1') && !isIP('01.2.3.4')",
        "!isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0') && string(ip('2001:DB8::1')) == '2001:db8::1'",
        "ip.isCanonical('127.0.0.1') && ip.isCanonical('2001:db8::abcd')",
        "!ip.isCanonical('2001:DB8::ABCD') && !ip.isCanonical('2001:db8::0:0:0:abcd')",
        "ip('127.0.0.1').family() == 4 && ip('::1').family() == 6",
        "ip('0.0.0.0').isUnspecified() && !ip('127.0.0.1').isUnspecified() && ip('::').isUnspecified()",
        "ip('127.0.0.1').isLoopback() && ip('::1').isLoopback() && !ip('192.168.0.1').isLoopback()",
        "ip('224.0.0.1').isLinkLocalMulticast() && !ip('224.0.1.1').isLinkLocalMulticast()",
        "ip('ff02::1').isLinkLocalMulticast() && !ip('fd00::1').isLinkLocalMulticast()",
        "ip('169.254.169.254').isLinkLocalUnicast() && !ip('192.168.0.1').isLinkLocalUnicast()",
        "ip('fe80::1').isLinkLocalUnicast() && !ip('fd80::1').isLinkLocalUnicast()",
        "ip('192.168.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast()",
        "ip('2001:db8::abcd').isGlobalUnicast() && !ip('ff00::1').isGlobalUnicast()",
        "ip('10.0.0.1') == ip('10.0.0.1') && type(ip('10.0.0.1')) == net.IP",
    ]);
    fails(&[("ip('127.0.0.256')", "parse error"), ("ip('fe80::1%eth0')", "with zone value is not allowed")]);
}

#[test]
fn ranges() {
    holds(&[
        "isCIDR('192.168.0.0/16') && isCIDR('::1/128') && !isCIDR('192.168.0.0/33') && !isCIDR('::1/129')",
        "!isCIDR('10.0.0.0/08') && !isCIDR('10.0.0.0') && !isCIDR('::ffff:1.2.3.4/24')",
        "cidr('192.168.0.0/24').containsIP(ip('192.168.0.1')) && !cidr('192.168.0.0/24').containsIP(ip('192.168.1.1'))",
        "cidr('192.168.0.0/24').containsIP('192.168.0.1') && !cidr('192.168.0.0/24').containsIP('::1')",
        "cidr('192.168.0.0/16').containsCIDR(cidr('192.168.10.0/24'))",
        "!cidr('192.168.1.0/24').containsCIDR('192.168.2.0/24') && cidr('0.0.0.0/0').containsCIDR('10.0.0.0/8')",
        "cidr('192.168.0.1/24').ip() == ip('192.168.0.1') && cidr('::1/128').ip().family() == 6",
        "cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24')",
        "cidr('192.168.0.1/24') != cidr('192.168.0.1/24').masked() && cidr('::/0').prefixLength() == 0",
        "cidr('192.168.0.0/16').prefixLength() == 16 && string(cidr('::1/128')) == '::1/128'",
    ]);
    fails(&[
        ("cidr('192.168.0.0/33')", "prefix length out of range"),
        ("cidr('10.0.0.0/8').containsIP('x')", "parse error"),
    ]);
}

#[test]
fn named_formats() {
    holds(&[
        "!format.dns1123Label().validate('my-label-name').hasValue()",
        "format.dns1123Label().validate('contains a space').hasValue()",
        "format.dns1123Label().validate('x'.replace('x', 'A')).value()[0].startsWith('a lowercase RFC 1123 label')",
        "!format.dns1123Subdomain().validate('apiextensions.k8s.io').hasValue()",
        "!format.dns1035Label().validate('my-label-name').hasValue() && format.dns1035Label().validate('1a').hasValue()",
        "!format.qualifiedName().validate('apiextensions.k8s.io/v1beta1').hasValue()",
        "!format.dns1123LabelPrefix().validate('my-label-prefix-').hasValue()",
        "!format.dns1123SubdomainPrefix().validate('mysubdomain.prefix.-').hasValue()",
        "!format.dns1035LabelPrefix().validate('my-label-prefix-').hasValue()",
        "!format.labelValue().validate('a_b.c').hasValue() && format.labelValue().validate('-').hasValue()",
        "!format.uri().validate('http://example.com').hasValue()",
        "format.uri().validate('x').value() == ['parse \"x\": invalid URI for request']",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()",
        "format.uuid().validate('123').value() == ['does not match the UUID format']",
        "!format.byte().validate('aGVsbG8=').hasValue() && format.byte().validate('*').value() == ['invalid base64']",
        "!format.date().validate('2021-01-01').hasValue() && format.date().validate('2021').value() == ['invalid date']",
        "!format.datetime().validate('2021-01-01T00:00:00Z').hasValue()",
        "format.datetime().validate('x').value() == ['invalid datetime']",
        "!format.named('dns1123Label').value().validate('name').hasValue() && !format.named('none').hasValue()",
    ]);
}

#[test]
fn versions() {
    holds(&[
        "isSemver('1.0.0') && isSemver('0.1.0-alpha.1') && !isSemver('hello') && !isSemver('v1.0') && !isSemver('200K')",
        "isSemver('v1.0', true) && isSemver('1', true) && isSemver('01.01.01', true) && !isSemver('Three', true)",
        "semver('v1.0.0', true) == semver('1.0.0') && semver('01.01.01', true) == semver('1.1.1')",
        "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
        "semver('1.2.3').compareTo(semver('1.2.3')) == 0 && semver('1.2.3').compareTo(semver('2.0.0')) == -1",
        "semver('1.2.3').compareTo(semver('0.1.2')) == 1 && semver('1.0.0-a').isLessThan(semver('1.0.0'))",
        "semver('1.10.0').isGreaterThan(semver('1.9.0'))",
    ]);
    fails(&[("semver('Three')", ""), ("semver('v1.0')", "")]);
}

#[test]
fn lists_and_sets() {
    holds(&[
        "[1, 2, 3].isSorted() && ['a', 'b'].isSorted() && ![2.0, 1.0].isSorted() && [].isSorted()",
        "[1, 3].sum() == 4 && [1.0, 3.0].sum() == 4.0 && [].sum() == 0",
        "[1, 3].min() == 1 && [1, 3].max() == 3 && ['b', 'a'].min() == 'a'",
        "[1, 2, 2, 3].indexOf(2) == 1 && ['a', 'b', 'b', 'c'].lastIndexOf('b') == 2 && [1.0].indexOf(1.1) == -1",
        "sets.contains([], []) && sets.contains([1, 2, 3, 4], [2, 3]) && !sets.contains([], [1])",
        "sets.equivalent([1], [1, 1]) && sets.equivalent([1, 2, 3], [3, 2, 1]) && !sets.equivalent([1], [2])",
        "sets.intersects([1], [1, 2]) && !sets.intersects([1], []) && sets.intersects([[1], [2]], [[2]])",
    ]);
    fails(&[("[].min()", "min called on empty list"), ("[].max()", "max called on empty list")]);
}

#[test]
fn texts_and_patterns() {
    holds(&[
        "'abc 123'.find('[0-9]+') == '123' && 'abc'.find('xyz') == ''",
        "'123 abc 456'.findAll('[0-9]+') == ['123', '456'] && '123 abc 456'.findAll('[0-9]+', 1) == ['123']",
        "'123 abc 456'.findAll('[0-9]+', 0) == [] && '123 abc 456'.findAll('xyz') == []",
        "'hello'.charAt(4) == 'o' && 'hello mellow'.indexOf('ello') == 1 && 'hello mellow'.lastIndexOf('ello') == 7",
        "['x', 'y'].join('-') == 'x-y' && 'TacoCat'.lowerAscii() == 'tacocat' && 'TacoCat'.upperAscii() == 'TACOCAT'",
        "'hello hello'.replace('he', 'we', 1) == 'wello hello' && 'a,b'.split(',') == ['a', 'b']",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco' && '  x '.trim() == 'x'",
        "'%s is %d'.format(['x', 1]) == 'x is 1' && strings.quote('a\"b') == '\"a\\\\\"b\"'",
        "'gums'.reverse() == 'smug' && jsonpatch.escapeKey('k8s.io/my~label') == 'k8s.io~1my~0label'",
    ]);
    fails(&[("'a'.find('(')", "")]);
}

#[test]
fn optional_values_and_bindings() {
    holds(&[
        "{'a': 1}.?a.orValue(2) == 1 && {'a': 1}.?b.orValue(2) == 2 && !{'a': 1}[?'b'].hasValue()",
        "optional.of(1).value() == 1 && !optional.none().hasValue() && !optional.ofNonZeroValue(0).hasValue()",
        "cel.bind(x, [1, 2], x.size() == 2 && x[0] == 1)",
        "{'namespace': 'a'}.namespace == 'a' && has({'namespace': 1}.namespace)",
        "[1, 2].exists_one(x, x == 1) && [1, 2].map(x, x * 2) == [2, 4] && [1, 2].filter(x, x > 1) == [2]",
    ]);
    fails(&[("{'a': 1}.b", "no such key: b"), ("1 / 0", "division by zero"), ("1 % 0", "modulus by zero")]);
}

#[test]
fn times() {
    holds(&[
        "timestamp('2020-02-29T12:34:56.789Z').getFullYear() == 2020 && timestamp('2020-02-29T00:00:00Z').getMonth() == 1",
        "timestamp('2020-02-29T12:34:56.789Z').getDate() == 29 && timestamp('2020-02-29T00:00:00Z').getDayOfMonth() == 28",
        "timestamp('2020-12-31T00:00:00Z').getDayOfYear() == 365 && timestamp('2023-01-01T00:00:00Z').getDayOfWeek() == 0",
        "timestamp('2020-02-29T12:34:56.789Z').getHours() == 12 && timestamp('2020-02-29T12:34:56.789Z').getMinutes() == 34",
        "timestamp('2020-02-29T12:34:56.789Z').getSeconds() == 56 && timestamp('2020-02-29T12:34:56.789Z').getMilliseconds() == 789",
        "timestamp('2020-02-29T12:34:56+02:00').getHours() == 10 && timestamp('2020-07-01T00:00:00Z').getHours('02:30') == 2",
        "timestamp('2020-07-01T00:00:00Z').getHours('-07:30') == 16 && timestamp('2020-07-01T00:00:00Z').getMinutes('-07:30') == 30",
        "timestamp('2020-07-01T00:00:00Z').getDate('America/New_York') == 30",
        "timestamp('2020-07-01T00:00:00Z').getHours('America/New_York') == 20",
        "timestamp('2020-02-29T00:00:00Z') + duration('24h') == timestamp('2020-03-01T00:00:00Z')",
        "duration('1h') + timestamp('2020-02-29T00:00:00Z') > timestamp('2020-02-29T00:59:59.999Z')",
        "timestamp('2020-03-01T00:00:00Z') - timestamp('2020-02-29T00:00:00Z') == duration('24h')",
        "timestamp('2020-03-01T00:00:00Z') - duration('24h') == timestamp('2020-02-29T01:00:00+01:00')",
        "duration('1h30m') - duration('30m') == duration('3600s') && duration('1m') < duration('61s')",
        "duration('90m').getHours() == 1 && duration('90m').getMinutes() == 90 && duration('90m').getSeconds() == 5400",
        "duration('-1.5s').getSeconds() == -1 && duration('1.5s').getMilliseconds() == 1500",
        "string(duration('1h0.5s')) == '3600.5s' && int(duration('1s')) == 1000000000 && duration(1000) == duration('1us')",
        "string(timestamp('2020-02-29T12:34:56.7800Z')) == '2020-02-29T12:34:56.78Z'",
        "string(timestamp('2020-02-29T12:34:56-05:00')) == '2020-02-29T12:34:56-05:00'",
        "int(timestamp('1969-12-31T23:59:59.5Z')) == -1 && timestamp(0) == timestamp('1970-01-01T00:00:00Z')",
        "type(timestamp(0)) == google.protobuf.Timestamp && type(duration('0')) == google.protobuf.Duration",
        "[timestamp(2), timestamp(1)].min() == timestamp(1) && [duration('1s'), duration('2s')].sum() == duration('3s')",
        "[timestamp(1), timestamp(2)].isSorted() && timestamp(1) in [timestamp(1)] && timestamp(1) != timestamp(2)",
        "[timestamp(2), timestamp(1)].sort() == [timestamp(1), timestamp(2)]",
        "'%s %s'.format([timestamp(0), duration('1.5s')]) == '1970-01-01T00:00:00Z 1.5s'",
        "!optional.ofNonZeroValue(duration('0')).hasValue()",
    ]);
    fails(&[
        ("timestamp('2020-02-30T00:00:00Z')", "cannot parse"),
        ("timestamp('2020-02-29t00:00:00z')", "cannot parse"),
        ("timestamp('2020-02-29')", "cannot parse"),
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "timestamp overflow"),
        ("timestamp(253402300800)", "timestamp overflow"),
        ("duration('2562047h') + duration('2h')", "duration overflow"),
        ("timestamp('9999-12-31T23:59:59Z') - timestamp('0001-01-01T00:00:00Z')", "integer overflow"),
        ("timestamp(0).getHours('No/Where')", "unknown time zone No/Where"),
        ("timestamp(0) + 1", "no such overload"),
        ("timestamp(0) < duration('1s')", "no such overload"),
        ("9223372036854775807 + 1", "integer overflow"),
    ]);
}

#[test]
fn macros_over_two_variables() {
    holds(&[
        "[1, 2, 3].all(i, v, v == i + 1) && ![1, 3].all(i, v, v == i + 1) && [].all(i, v, false)",
        "{'a': 1, 'b': 2}.all(k, v, k == 'a' || v == 2) && {'a': 1}.exists(k, v, k + string(v) == 'a1')",
        "[5, 6].exists(i, v, i == 1 && v == 6) && ![5, 6].exists(i, v, i == v)",
        "[5, 6, 6].existsOne(i, v, v == 5 && i == 0) && ![5, 6, 6].exists_one(i, v, v == 6)",
        "[1, 2].transformList(i, v, i * 10 + v) == [1, 12] && [1, 2, 3].transformList(i, v, v % 2 == 1, v) == [1, 3]",
        "{'a': 1}.transformList(k, v, k + string(v)) == ['a1']",
        "{'a': 1, 'b': 2}.transformMap(k, v, v * 2) == {'a': 2, 'b': 4} && [7].transformMap(i, v, v + i) == {0: 7}",
        "{'a': 1, 'b': 2}.transformMap(k, v, v > 1, k) == {'b': 'b'}",
        "{'a': 'x', 'b': 'y'}.transformMapEntry(k, v, {v: k}) == {'x': 'a', 'y': 'b'}",
        "['p', 'q'].transformMapEntry(i, v, i > 0, {v: i}) == {'q': 1} && {}.transformMapEntry(k, v, {k: v}) == {}",
        "[[1, 2], [3]].all(i, inner, inner.all(j, v, v > i + j))",
        "[1, 0].exists(i, v, 1 / v == 1) && [0, 1].all(i, v, i == 1 || v == 0)",
        "[3, 4].transformList(v, i, [9].transformList(i, w, w + i + v)) == [[9], [10]]",
    ]);
    fails(&[
        ("{'a': 1, 'b': 1}.transformMapEntry(k, v, {v: k})", "insert failed: key 1 already exists"),
        ("[0].all(i, v, 1 / v == 1)", "division by zero"),
        ("1.all(i, v, true)", "no such overload"),
    ]);
    for (source, why) in [
        ("[1].all(i, i, true)", "duplicate variable name: i"),
        ("[1].all(i.x, v, true)", "argument is not an identifier"),
    ] {
        let error = compile(source).map(|_| ()).unwrap_err();
        assert!(error.contains(why), "{source}: {error}");
    }
}
