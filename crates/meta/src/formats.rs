//! What names, labels, keys, ports and addresses must look like, and the texts that say what is wrong with them.
//!
//! Each function returns upstream's texts, none where the value is fine. The invariant: the texts are those of
//! apimachinery's `validation` package, regular expressions included, since people search for them.

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
     must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
     and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
     consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
     '*.example.com', regex used for validation is \
     '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const NAME_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
     and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  \
     or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const RELAXED_ENV: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used \
     for validation is '[-A-Za-z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
     regex used for validation is '[0-9]+%')";

/// RFC 1123 subdomain.
pub fn subdomain(text: &str) -> Vec<String> {
    let mut wrong = longer_than(text, 253);
    if !text.split('.').all(is_label_shape) {
        wrong.push(SUBDOMAIN.to_owned());
    }
    wrong
}

/// RFC 1123 label.
pub fn label(text: &str) -> Vec<String> {
    let mut wrong = longer_than(text, 63);
    if !is_label_shape(text) {
        let dotted = text.split('.').all(is_label_shape);
        wrong.push(if dotted { "must not contain dots" } else { LABEL }.to_owned());
    }
    wrong
}

/// RFC 1035 label.
pub fn label_1035(text: &str) -> Vec<String> {
    let mut wrong = longer_than(text, 63);
    if !is_label_shape(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        wrong.push(LABEL_1035.to_owned());
    }
    wrong
}

/// `*.` and an RFC 1123 subdomain.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut wrong = longer_than(text, 253);
    if !text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label_shape)) {
        wrong.push(WILDCARD.to_owned());
    }
    wrong
}

/// The key of a label: an optional RFC 1123 subdomain and `/`, then a name.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        ["", name] => {
            wrong.push("prefix part must be non-empty".to_owned());
            name
        }
        [prefix, name] => {
            wrong.extend(subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {NAME_PART} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push("name part must be no more than 63 characters".to_owned());
    }
    if name.is_empty() || !is_name_shape(name) {
        wrong.push(format!("name part {NAME_PART}"));
    }
    wrong
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = longer_than(text, 63);
    if !is_name_shape(text) {
        wrong.push(LABEL_VALUE.to_owned());
    }
    wrong
}

/// What can stand in a path as it is.
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => path_segment_prefix(text),
    }
}

/// What can begin a path segment.
pub fn path_segment_prefix(text: &str) -> Vec<String> {
    ["/", "%"].iter().filter(|part| text.contains(**part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// The key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut wrong = longer_than(text, 253);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || !text.chars().all(allowed) {
        wrong.push(CONFIG_KEY.to_owned());
    }
    wrong.extend(parent_folder(text));
    wrong
}

/// The name of an environment variable.
pub fn env_name(text: &str) -> Vec<String> {
    match text {
        "" => vec!["environment variable name must be non-empty".to_owned()],
        _ if text.chars().all(|c| (' '..='~').contains(&c) && c != '=') => Vec::new(),
        _ => vec![RELAXED_ENV.to_owned()],
    }
}

/// The name of a container's port (IANA service name).
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong = longer_than(text, 15);
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.contains(|c: char| c.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// A port's number.
pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65_535)
}

/// A number between two others, which belong to the range.
pub fn in_range(number: i64, low: i64, high: i64) -> Vec<String> {
    match (low..=high).contains(&number) {
        true => Vec::new(),
        false => vec![format!("must be between {low} and {high}, inclusive")],
    }
}

/// The name of an HTTP header.
pub fn header_name(text: &str) -> Vec<String> {
    match !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        true => Vec::new(),
        false => vec![HEADER.to_owned()],
    }
}

/// A percentage such as `25%`.
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    match !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
        true => Vec::new(),
        false => vec![PERCENT.to_owned()],
    }
}

/// An IP address of either family.
pub fn ip(text: &str) -> Vec<String> {
    match text.parse::<std::net::IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// A network such as `10.0.0.0/8`.
pub fn cidr(text: &str) -> Vec<String> {
    match parse_cidr(text) {
        Some(_) => Vec::new(),
        None => vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()],
    }
}

/// Address and prefix length of a network.
pub fn parse_cidr(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let digits = !length.is_empty() && length.chars().all(|c| c.is_ascii_digit());
    let length: u8 = digits.then(|| length.parse().ok())??;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

fn longer_than(text: &str, limit: usize) -> Vec<String> {
    match text.len() > limit {
        true => vec![format!("must be no more than {limit} characters")],
        false => Vec::new(),
    }
}

fn parent_folder(text: &str) -> Option<String> {
    match text {
        "." | ".." => Some(format!("must not be '{text}'")),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// An RFC 1123 label of any length.
fn is_label_shape(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(inner) && text.ends_with(inner) && text.chars().all(|c| inner(c) || c == '-')
}

/// Empty, or a label's value of any length.
fn is_name_shape(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_what_is_wrong() {
        let check = |rule: fn(&str) -> Vec<String>, text: &str, wrong: &[&str]| {
            let found = rule(text);
            assert_eq!(found.len(), wrong.len(), "{text:?}: {found:?}");
            for (found, wrong) in found.iter().zip(wrong) {
                assert!(found.starts_with(wrong), "{text:?}: {found}");
            }
        };
        let long = "a".repeat(300);
        check(subdomain, "a.b-c", &[]);
        check(subdomain, "A", &["a lowercase RFC 1123 subdomain must consist of"]);
        check(subdomain, &long, &["must be no more than 253 characters"]);
        check(label, "a.b", &["must not contain dots"]);
        check(label, "a_b", &["a lowercase RFC 1123 label"]);
        check(label_1035, "0a", &["a DNS-1035 label"]);
        check(wildcard_subdomain, "*.a.b", &[]);
        check(wildcard_subdomain, "a.b", &["a wildcard DNS-1123 subdomain"]);
        check(qualified_name, "a.b/C_d", &[]);
        check(qualified_name, "/c", &["prefix part must be non-empty"]);
        check(qualified_name, "a/", &["name part must be non-empty", "name part must consist of"]);
        check(qualified_name, "a/b/c", &["a valid label key must consist of"]);
        check(label_value, "", &[]);
        check(label_value, "-a", &["a valid label must be"]);
        check(path_segment, "..", &["may not be '..'"]);
        check(path_segment, "a/b%", &["may not contain '/'", "may not contain '%'"]);
        check(config_key, "..a", &["must not start with '..'"]);
        check(config_key, "a b", &["a valid config key must"]);
        check(env_name, "A=B", &["a valid environment variable name must"]);
        check(env_name, "1 A", &[]);
        check(port_name, "http", &[]);
        check(port_name, "8-", &["must contain at least one letter", "must not begin or end with a hyphen"]);
        check(percent, "10", &["a valid percent string"]);
        check(ip, "10.0.0", &["must be a valid IP address"]);
        check(cidr, "10.0.0.0/33", &["must be a valid CIDR value"]);
        check(cidr, "fd00::/8", &[]);
    }
}
