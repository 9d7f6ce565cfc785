//! URLs: `url`, `isURL`, and the parts of one. Read as Go's `net/url` reads them.

use std::collections::HashMap;

use cel::common::types;
use cel::common::types::{CelMap, CelMapKey, CelString};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use crate::call::{self, Args, Outcome, failed, text_at, truth, value_at, value_type};

/// A URL as a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UrlVal {
    scheme: String,
    host: String,
    path: String,
    query: String,
    whole: String,
}

value_type!(TYPE: UrlVal, "kubernetes.URL", |one, other| one.whole == other.whole);

/// What is wrong with a text that is to be an absolute URI or path, in Go's words; none where it is one.
pub(crate) fn uri_error(text: &str) -> Option<String> {
    parse(text, true).err().map(|why| format!("parse {text:?}: {why}"))
}

fn parse(whole: &str, is_request: bool) -> Result<UrlVal, String> {
    if whole.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    if whole.is_empty() && is_request {
        return Err("empty url".to_owned());
    }
    let without_fragment = if is_request { whole } else { whole.split('#').next().unwrap_or_default() };
    let (scheme, rest) = split_scheme(without_fragment)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = UrlVal {
        scheme: scheme.to_ascii_lowercase(),
        query: query.to_owned(),
        whole: whole.to_owned(),
        ..UrlVal::default()
    };
    if !rest.starts_with('/') {
        if !url.scheme.is_empty() || rest == "*" {
            return Ok(url);
        }
        return Err(if is_request { "invalid URI for request" } else { "no scheme" }.to_owned());
    }
    let has_authority = !url.scheme.is_empty() || (!is_request && !rest.starts_with("///"));
    let path = match rest.strip_prefix("//").filter(|_| has_authority) {
        Some(rest) => {
            let at = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(at);
            url.host = host(authority)?;
            path
        }
        None => rest,
    };
    unescape(path)?;
    path.clone_into(&mut url.path);
    Ok(url)
}

fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (index, letter) in text.char_indices() {
        match letter {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if index > 0 => {}
            ':' if index > 0 => return Ok((&text[..index], &text[index + 1..])),
            ':' => return Err("missing protocol scheme".to_owned()),
            _ => break,
        }
    }
    Ok(("", text))
}

fn host(authority: &str) -> Result<String, String> {
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let is_fine = |letter: char| letter.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(letter);
            if !user.chars().all(is_fine) {
                return Err("net/url: invalid userinfo".to_owned());
            }
            unescape(user)?;
            host
        }
        None => authority,
    };
    let port = if host.starts_with('[') {
        let end = host.rfind(']').ok_or("missing ']' in host")?;
        &host[end + 1..]
    } else {
        // The first colon: neither a name nor an IPv4 address has one.
        host.find(':').map_or("", |at| &host[at..])
    };
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|own| own.bytes().all(|b| b.is_ascii_digit()));
    if !is_port {
        return Err(format!("invalid port {port:?} after host"));
    }
    let is_fine = |letter: char| {
        !letter.is_ascii() || letter.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(letter)
    };
    if let Some(wrong) = host.chars().find(|letter| !is_fine(*letter)) {
        return Err(format!("invalid character {:?} in host name", wrong.to_string()));
    }
    unescape(host)
}

/// Turns `%41` into `A`.
fn unescape(text: &str) -> Result<String, String> {
    let (mut out, bytes) = (Vec::with_capacity(text.len()), text.as_bytes());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|own| own.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let Some(byte) = byte else {
            let end = (at..=bytes.len().min(at + 3)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(at);
            return Err(format!("invalid URL escape {:?}", &text[at..end]));
        };
        out.push(byte);
        at += 3;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn escaped_path(path: &str) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte);
    if path.bytes().all(|byte| is_kept(byte) || b"!'()*[]%".contains(&byte)) {
        return path.to_owned();
    }
    let escape = |byte: u8| if is_kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    unescape(path).unwrap_or_default().bytes().map(escape).collect()
}

fn own<'a>(args: &'a [CowVal<'_, '_>]) -> Result<&'a UrlVal, ExecutionError> {
    value_at::<UrlVal>(args, 0, "url")
}

fn url<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let text = text_at(&args, 0, "url")?;
    let wrong = |why: String| failed("url", format!("URL parse error during conversion from string: {why}"));
    if let Some(why) = uri_error(text) {
        return Err(wrong(why));
    }
    Ok(CowVal::owned(parse(text, false).map_err(wrong)?))
}

fn is_url<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(uri_error(text_at(&args, 0, "isURL")?).is_none())
}

fn scheme<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(own(&args)?.scheme.clone())
}

fn get_host<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(own(&args)?.host.clone())
}

/// A host as its name and its port.
fn name_and_port(host: &str) -> (&str, &str) {
    if let Some(rest) = host.strip_prefix('[') {
        let (name, port) = rest.rsplit_once(']').unwrap_or((rest, ""));
        return (name, port.trim_start_matches(':'));
    }
    host.split_once(':').unwrap_or((host, ""))
}

fn hostname<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(name_and_port(&own(&args)?.host).0)
}

fn port<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(name_and_port(&own(&args)?.host).1)
}

fn get_escaped_path<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(escaped_path(&own(&args)?.path))
}

fn query<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let mut values: HashMap<String, Vec<String>> = HashMap::new();
    let parts = own(&args)?.query.split('&').filter(|part| !part.is_empty() && !part.contains(';'));
    for (key, value) in parts.map(|part| part.split_once('=').unwrap_or((part, ""))) {
        // What can't be read is left out, as in Go.
        if let (Ok(key), Ok(value)) = (unescape(&key.replace('+', " ")), unescape(&value.replace('+', " "))) {
            values.entry(key).or_default().push(value);
        }
    }
    let values = values.into_iter().map(|(key, values)| {
        let values: Box<dyn Val> = Box::new(call::texts(values));
        (CelMapKey::String(CelString::from(key)), values)
    });
    Ok(CowVal::owned(CelMap::from(values.collect::<HashMap<_, _>>())))
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_type(TYPE.to_owned())?;
    env.add_overload("url", "string_to_url", vec![types::STRING_TYPE], url)?;
    env.add_overload("isURL", "is_url_string", vec![types::STRING_TYPE], is_url)?;
    let mut member =
        |name: &str, id: &str, function| env.add_member_overload(name, id, TYPE.to_owned(), Vec::new(), function);
    member("getScheme", "url_get_scheme", scheme)?;
    member("getHost", "url_get_host", get_host)?;
    member("getHostname", "url_get_hostname", hostname)?;
    member("getPort", "url_get_port", port)?;
    member("getEscapedPath", "url_get_escaped_path", get_escaped_path)?;
    member("getQuery", "url_get_query", query)
}
