//! What functions take and give: operators, the standard library and every library that the API server knows.
//!
//! A signature is written `target.(argument, ...) -> result`, without a target for a function that is not called on a value.
//! Single capitals are parameters: the same one stands for the same type. `$` stands for each type whose values have an
//! order, and `#` for each whose values can be added up.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::types::Type;

const COMPARABLE: &[&str] = &["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"];
const SUMMABLE: &[&str] = &["int", "uint", "double", "duration"];

/// One way to call a function.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) is_member: bool,
    /// The target first, if there is one.
    pub(super) takes: Vec<Type>,
    pub(super) gives: Type,
}

static SIGNATURES: LazyLock<HashMap<&'static str, Vec<Signature>>> = LazyLock::new(|| {
    let mut all: HashMap<&'static str, Vec<Signature>> = HashMap::new();
    for (names, signatures) in TABLE {
        for name in names.split(' ') {
            let own = all.entry(name).or_default();
            for signature in signatures.split("; ") {
                let one_of =
                    [('$', COMPARABLE), ('#', SUMMABLE)].into_iter().find(|(sign, _)| signature.contains(*sign));
                match one_of {
                    Some((sign, types)) => own.extend(types.iter().map(|of| read(&signature.replace(sign, of)))),
                    None => own.push(read(signature)),
                }
            }
        }
    }
    all
});

/// The ways to call a function; absent where there is no such function.
pub(super) fn signatures(name: &str) -> Option<&'static [Signature]> {
    SIGNATURES.get(name).map(Vec::as_slice)
}

fn read(text: &str) -> Signature {
    let (takes, gives) = text.split_once(" -> ").expect("a signature has a result");
    let at = takes.find('(').expect("a signature has arguments");
    // A target may have parameters itself, so that the arguments are what follows its point.
    let (target, args) = match takes.find(".(") {
        Some(point) => (Some(&takes[..point]), &takes[point + 2..]),
        None => (None, &takes[at + 1..]),
    };
    let args = args.strip_suffix(')').expect("arguments end");
    let takes = target.into_iter().chain(parts(args)).map(read_type).collect();
    Signature { is_member: target.is_some(), takes, gives: read_type(gives) }
}

/// What commas separate that stand within no parentheses.
fn parts(text: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0, 0);
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    found.extend(Some(text[start..].trim()).filter(|last| !last.is_empty()));
    found
}

/// Reads a type as the table writes it; a name that means nothing else is that of a library's type.
fn read_type(text: &str) -> Type {
    if let Some((name, of)) = text.split_once('(') {
        let mut of: Vec<Type> =
            parts(of.strip_suffix(')').expect("parameters end")).into_iter().map(read_type).collect();
        return match (name, of.len()) {
            ("list", 1) => Type::List(Box::new(of.remove(0))),
            ("type", 1) => Type::Type(Box::new(of.remove(0))),
            ("map", 2) => Type::Map(Box::new(of.remove(0)), Box::new(of.remove(0))),
            (name, _) => Type::Opaque(name.into(), of),
        };
    }
    named(text).unwrap_or_else(|| match text.as_bytes() {
        [letter @ b'A'..=b'Z'] => Type::Parameter(char::from(*letter)),
        _ => Type::opaque(text),
    })
}

/// A simple type by its name.
fn named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "duration" => Type::Duration,
        "dyn" => Type::Dyn,
        "int" => Type::Int,
        "null" => Type::Null,
        "string" => Type::String,
        "timestamp" => Type::Timestamp,
        "uint" => Type::Uint,
        _ => return None,
    })
}

/// The type that a name in an expression stands for, such as `int` in `type(x) == int`.
pub(super) fn type_name(name: &str) -> Option<Type> {
    const OF_LIBRARIES: [&str; 11] = [
        "kubernetes.NamedFormat",
        "kubernetes.Quantity",
        "kubernetes.Semver",
        "kubernetes.URL",
        "kubernetes.authorization.Authorizer",
        "kubernetes.authorization.Decision",
        "kubernetes.authorization.GroupCheck",
        "kubernetes.authorization.PathCheck",
        "kubernetes.authorization.ResourceCheck",
        "net.CIDR",
        "net.IP",
    ];
    let of = match name {
        "bool" | "bytes" | "double" | "int" | "string" | "uint" => named(name)?,
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "list" => Type::list(Type::Dyn),
        "map" => Type::Map(Box::new(Type::Dyn), Box::new(Type::Dyn)),
        "null_type" => Type::Null,
        "optional_type" => Type::optional(Type::Dyn),
        "type" => Type::Type(Box::new(Type::Dyn)),
        name if OF_LIBRARIES.contains(&name) => Type::opaque(name),
        _ => return None,
    };
    Some(Type::Type(Box::new(of)))
}

const TABLE: &[(&str, &str)] = &[
    ("_?_:_", "(bool, A, A) -> A"),
    ("!_ @not_strictly_false", "(bool) -> bool"),
    ("_&&_ _||_", "(bool, bool) -> bool"),
    ("_==_ _!=_", "(A, A) -> bool"),
    (
        "_+_",
        "(bytes, bytes) -> bytes; (double, double) -> double; (duration, duration) -> duration; \
         (duration, timestamp) -> timestamp; (timestamp, duration) -> timestamp; (int, int) -> int; \
         (list(A), list(A)) -> list(A); (string, string) -> string; (uint, uint) -> uint",
    ),
    (
        "_-_",
        "(double, double) -> double; (duration, duration) -> duration; (int, int) -> int; \
         (timestamp, duration) -> timestamp; (timestamp, timestamp) -> duration; (uint, uint) -> uint",
    ),
    ("_*_ _/_", "(double, double) -> double; (int, int) -> int; (uint, uint) -> uint"),
    ("_%_", "(int, int) -> int; (uint, uint) -> uint"),
    ("-_", "(double) -> double; (int) -> int"),
    (
        "_<_ _<=_ _>_ _>=_",
        "(bool, bool) -> bool; (int, int) -> bool; (int, double) -> bool; (int, uint) -> bool; (uint, uint) -> bool; \
         (uint, double) -> bool; (uint, int) -> bool; (double, double) -> bool; (double, int) -> bool; \
         (double, uint) -> bool; (string, string) -> bool; (bytes, bytes) -> bool; (timestamp, timestamp) -> bool; \
         (duration, duration) -> bool",
    ),
    (
        "_[_]",
        "(list(A), int) -> A; (map(A, B), A) -> B; (optional_type(list(V)), int) -> optional_type(V); \
         (optional_type(map(K, V)), K) -> optional_type(V)",
    ),
    (
        "_[?_]",
        "(list(V), int) -> optional_type(V); (optional_type(list(V)), int) -> optional_type(V); \
         (map(K, V), K) -> optional_type(V); (optional_type(map(K, V)), K) -> optional_type(V)",
    ),
    ("@in", "(A, list(A)) -> bool; (A, map(A, B)) -> bool"),
    (
        "size",
        "(bytes) -> int; bytes.() -> int; (list(A)) -> int; list(A).() -> int; (map(A, B)) -> int; map(A, B).() -> int; \
         (string) -> int; string.() -> int",
    ),
    ("type", "(A) -> type(A)"),
    ("bool", "(bool) -> bool; (string) -> bool"),
    ("bytes", "(bytes) -> bytes; (string) -> bytes"),
    ("double", "(double) -> double; (int) -> double; (string) -> double; (uint) -> double"),
    ("duration", "(duration) -> duration; (int) -> duration; (string) -> duration"),
    ("dyn", "(A) -> dyn"),
    ("int", "(int) -> int; (double) -> int; (duration) -> int; (string) -> int; (timestamp) -> int; (uint) -> int"),
    (
        "string",
        "(string) -> string; (bool) -> string; (bytes) -> string; (double) -> string; (duration) -> string; \
         (int) -> string; (timestamp) -> string; (uint) -> string; (net.IP) -> string; (net.CIDR) -> string",
    ),
    ("timestamp", "(timestamp) -> timestamp; (int) -> timestamp; (string) -> timestamp"),
    ("uint", "(uint) -> uint; (double) -> uint; (int) -> uint; (string) -> uint"),
    ("contains endsWith startsWith", "string.(string) -> bool"),
    ("matches", "(string, string) -> bool; string.(string) -> bool"),
    (
        "getFullYear getMonth getDayOfYear getDayOfMonth getDate getDayOfWeek",
        "timestamp.() -> int; timestamp.(string) -> int",
    ),
    (
        "getHours getMinutes getSeconds getMilliseconds",
        "timestamp.() -> int; timestamp.(string) -> int; duration.() -> int",
    ),
    ("optional.of optional.ofNonZeroValue", "(V) -> optional_type(V)"),
    ("optional.none", "() -> optional_type(V)"),
    ("value", "optional_type(V).() -> V"),
    ("hasValue", "optional_type(V).() -> bool"),
    ("or", "optional_type(V).(optional_type(V)) -> optional_type(V)"),
    ("orValue", "optional_type(V).(V) -> V"),
    ("charAt", "string.(int) -> string"),
    ("indexOf lastIndexOf", "string.(string) -> int; string.(string, int) -> int; list(A).(A) -> int"),
    ("lowerAscii upperAscii trim", "string.() -> string"),
    ("replace", "string.(string, string) -> string; string.(string, string, int) -> string"),
    ("split", "string.(string) -> list(string); string.(string, int) -> list(string)"),
    ("substring", "string.(int) -> string; string.(int, int) -> string"),
    ("format", "string.(list(dyn)) -> string"),
    ("strings.quote", "(string) -> string"),
    ("join", "list(string).() -> string; list(string).(string) -> string"),
    ("sets.contains sets.equivalent sets.intersects", "(list(T), list(T)) -> bool"),
    ("slice", "list(T).(int, int) -> list(T)"),
    ("flatten", "list(list(T)).() -> list(T); list(dyn).(int) -> list(dyn)"),
    ("lists.range", "(int) -> list(int)"),
    // Of texts upstream's environment has no `reverse`; ours allowed it from the beginning.
    ("reverse", "list(T).() -> list(T); string.() -> string"),
    ("distinct", "list(T).() -> list(T)"),
    ("sort", "list($).() -> list($)"),
    ("isSorted", "list($).() -> bool"),
    ("min max", "list($).() -> $"),
    ("sum", "list(#).() -> #"),
    ("@sortByAssociatedKeys", "list(T).(list($)) -> list(T)"),
    ("find", "string.(string) -> string"),
    ("findAll", "string.(string) -> list(string); string.(string, int) -> list(string)"),
    ("quantity", "(string) -> kubernetes.Quantity"),
    ("isQuantity isURL isIP isCIDR ip.isCanonical", "(string) -> bool"),
    ("sign asInteger", "kubernetes.Quantity.() -> int"),
    ("asApproximateFloat", "kubernetes.Quantity.() -> double"),
    ("isInteger", "kubernetes.Quantity.() -> bool"),
    (
        "add sub",
        "kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity; kubernetes.Quantity.(int) -> kubernetes.Quantity",
    ),
    (
        "isGreaterThan isLessThan",
        "kubernetes.Quantity.(kubernetes.Quantity) -> bool; kubernetes.Semver.(kubernetes.Semver) -> bool",
    ),
    ("compareTo", "kubernetes.Quantity.(kubernetes.Quantity) -> int; kubernetes.Semver.(kubernetes.Semver) -> int"),
    ("semver", "(string) -> kubernetes.Semver; (string, bool) -> kubernetes.Semver"),
    ("isSemver", "(string) -> bool; (string, bool) -> bool"),
    ("major minor patch", "kubernetes.Semver.() -> int"),
    ("url", "(string) -> kubernetes.URL"),
    ("getScheme getHost getHostname getPort getEscapedPath", "kubernetes.URL.() -> string"),
    ("getQuery", "kubernetes.URL.() -> map(string, list(string))"),
    ("ip", "(string) -> net.IP; net.CIDR.() -> net.IP"),
    ("family", "net.IP.() -> int"),
    ("isUnspecified isLoopback isLinkLocalMulticast isLinkLocalUnicast isGlobalUnicast", "net.IP.() -> bool"),
    ("cidr", "(string) -> net.CIDR"),
    ("containsIP", "net.CIDR.(string) -> bool; net.CIDR.(net.IP) -> bool"),
    ("containsCIDR", "net.CIDR.(string) -> bool; net.CIDR.(net.CIDR) -> bool"),
    ("prefixLength", "net.CIDR.() -> int"),
    ("masked", "net.CIDR.() -> net.CIDR"),
    ("validate", "kubernetes.NamedFormat.(string) -> optional_type(list(string))"),
    ("format.named", "(string) -> optional_type(kubernetes.NamedFormat)"),
    (
        "format.byte format.date format.datetime format.dns1035Label format.dns1035LabelPrefix format.dns1123Label \
         format.dns1123LabelPrefix format.dns1123Subdomain format.dns1123SubdomainPrefix format.labelValue \
         format.qualifiedName format.uri format.uuid",
        "() -> kubernetes.NamedFormat",
    ),
    ("jsonpatch.escapeKey", "(string) -> string"),
    ("path", "kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.PathCheck"),
    ("group", "kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.GroupCheck"),
    ("serviceAccount", "kubernetes.authorization.Authorizer.(string, string) -> kubernetes.authorization.Authorizer"),
    ("resource", "kubernetes.authorization.GroupCheck.(string) -> kubernetes.authorization.ResourceCheck"),
    (
        "subresource namespace name fieldSelector labelSelector",
        "kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
    ),
    (
        "check",
        "kubernetes.authorization.PathCheck.(string) -> kubernetes.authorization.Decision; \
         kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.Decision",
    ),
    ("allowed errored", "kubernetes.authorization.Decision.() -> bool"),
    ("reason error", "kubernetes.authorization.Decision.() -> string"),
    // What macros become; nobody can write these.
    ("@pairs", "(list(A)) -> list(@pair(int, A)); (map(K, V)) -> list(@pair(K, V))"),
    ("@first", "(@pair(K, V)) -> K"),
    ("@second", "(@pair(K, V)) -> V"),
    ("@pair", "(K, V) -> @pair(K, V)"),
    ("@mapOf", "(list(@pair(K, V))) -> map(K, V)"),
    ("@merged", "(list(map(K, V))) -> map(K, V)"),
    ("@printable", "(A) -> A"),
];
