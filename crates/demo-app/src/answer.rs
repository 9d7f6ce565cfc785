//! What each endpoint answers. Pure: a request in, a plan of the response out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Map, Value, json};

use crate::page;

/// The longest delay that can be asked for.
const DELAY_MAX: f64 = 10.0;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The target.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
    /// The client's address.
    pub peer: IpAddr,
}

/// A response, and how long to wait before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Headers besides the length.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How long to wait before answering.
    pub delay: Duration,
}

impl Answer {
    fn json(value: &Value) -> Self {
        let mut body = serde_json::to_vec_pretty(value).expect("a value is JSON");
        body.push(b'\n');
        Self::body("application/json", body)
    }

    fn body(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self { status: StatusCode::OK, headers, body: body.into(), delay: Duration::ZERO }
    }

    fn status(status: StatusCode, text: &str) -> Self {
        Self { status, ..Self::body("text/plain; charset=utf-8", format!("{text}\n")) }
    }
}

/// Answers a request. `hostname` is the name of the machine (in a pod: of the pod).
pub fn answer(request: &Request, hostname: &str) -> Answer {
    let mut answer = route(request, hostname);
    answer.headers.extend([
        ("access-control-allow-origin", "*".to_owned()),
        ("access-control-allow-credentials", "true".to_owned()),
        // Tells a client behind a Service which pod it was.
        ("x-kedge-pod", hostname.to_owned()),
    ]);
    answer
}

fn route(request: &Request, hostname: &str) -> Answer {
    let path = request.uri.path();
    // `OPTIONS *` and `CONNECT` have targets without a slash.
    let Some(inner) = path.strip_prefix('/') else {
        return Answer::status(StatusCode::BAD_REQUEST, "400 the target is not a path");
    };
    let (first, rest) = inner.split_once('/').unwrap_or((inner, ""));
    let allowed: &[Method] = match first {
        "post" => &[Method::POST],
        "put" => &[Method::PUT],
        "patch" => &[Method::PATCH],
        "delete" => &[Method::DELETE],
        "anything" | "status" | "delay" => &[],
        _ => &[Method::GET, Method::HEAD],
    };
    let plain = rest.is_empty() && !path.ends_with('/');
    let answer = match first {
        "" => Answer::body("text/html; charset=utf-8", page::html(hostname)),
        "anything" => Answer::json(&echo(request, true)),
        "get" if plain => Answer::json(&echo_without_body(request)),
        "post" | "put" | "patch" | "delete" if plain => Answer::json(&echo(request, false)),
        "headers" if plain => Answer::json(&json!({"headers": headers(request)})),
        "ip" if plain => Answer::json(&json!({"origin": origin(request)})),
        "user-agent" if plain => Answer::json(&json!({"user-agent": header(request, "user-agent")})),
        "hostname" if plain => Answer::json(&json!({"hostname": hostname})),
        "healthz" | "readyz" | "livez" if plain => Answer::status(StatusCode::OK, "ok"),
        "status" => status(rest),
        "delay" => delay(request, rest),
        _ => return Answer::status(StatusCode::NOT_FOUND, "404 page not found"),
    };
    if allowed.is_empty() || allowed.contains(&request.method) {
        return answer;
    }
    let mut refusal = Answer::status(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed");
    let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    refusal.headers.push(("allow", names.join(", ")));
    refusal
}

fn status(code: &str) -> Answer {
    let known = code.parse::<u16>().ok().filter(|code| (200..=599).contains(code));
    let Some(status) = known.and_then(|code| StatusCode::from_u16(code).ok()) else {
        return Answer::status(StatusCode::BAD_REQUEST, "Invalid status code: it must be a number from 200 to 599");
    };
    let mut answer = Answer { status, headers: Vec::new(), body: Vec::new(), delay: Duration::ZERO };
    match status.as_u16() {
        301 | 302 | 303 | 305 | 307 | 308 => answer.headers.push(("location", "/get".to_owned())),
        401 => answer.headers.push(("www-authenticate", "Basic realm=\"Kedge demo\"".to_owned())),
        418 => answer.body = b"I'm a teapot.\n".to_vec(),
        _ => {}
    }
    answer
}

fn delay(request: &Request, seconds: &str) -> Answer {
    match seconds.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => {
            let delay = Duration::from_secs_f64(seconds.min(DELAY_MAX));
            Answer { delay, ..Answer::json(&echo(request, false)) }
        }
        _ => Answer::status(StatusCode::BAD_REQUEST, "Invalid delay: it must be a number of seconds"),
    }
}

fn echo_without_body(request: &Request) -> Value {
    json!({"args": args(request), "headers": headers(request), "origin": origin(request), "url": url(request)})
}

fn echo(request: &Request, with_method: bool) -> Value {
    let mut value = echo_without_body(request);
    let kind = header(request, "content-type");
    let kind = kind.as_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_form = kind == "application/x-www-form-urlencoded";
    let text = std::str::from_utf8(&request.body);
    value["form"] = match text {
        Ok(text) if is_form => Value::Object(pairs(text)),
        _ => json!({}),
    };
    // As httpbin does it: a form is not repeated as data, and bytes that are no text come as a data URL.
    value["data"] = match text {
        Ok(_) if is_form => json!(""),
        Ok(text) => json!(text),
        Err(_) => json!(format!("data:application/octet-stream;base64,{}", STANDARD.encode(&request.body))),
    };
    value["files"] = json!({});
    value["json"] = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    if with_method {
        value["method"] = json!(request.method.as_str());
    }
    value
}

fn args(request: &Request) -> Value {
    Value::Object(pairs(request.uri.query().unwrap_or_default()))
}

/// The pairs of a query or form; a name that comes several times has a list.
fn pairs(text: &str) -> Map<String, Value> {
    let mut pairs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.entry(decode(name)).or_default().push(decode(value).into());
    }
    let single = |mut values: Vec<Value>| if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
    pairs.into_iter().map(|(name, values)| (name, single(values))).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn headers(request: &Request) -> Value {
    let mut listed: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let entry = listed.entry(canonical(name.as_str())).or_default();
        if !entry.is_empty() {
            entry.push(',');
        }
        entry.push_str(&value);
    }
    json!(listed)
}

/// `content-type` as people write it: `Content-Type`.
fn canonical(name: &str) -> String {
    let capital = |word: &str| match word.split_at_checked(1) {
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => String::new(),
    };
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

fn header(request: &Request, name: &str) -> Value {
    request.headers.get(name).map_or(Value::Null, |value| String::from_utf8_lossy(value.as_bytes()).into())
}

fn origin(request: &Request) -> String {
    match header(request, "x-forwarded-for") {
        Value::String(forwarded) if !forwarded.is_empty() => forwarded,
        _ => request.peer.to_canonical().to_string(),
    }
}

fn url(request: &Request) -> String {
    let scheme = header(request, "x-forwarded-proto");
    let host = header(request, "host");
    let path = request.uri.path_and_query().map_or("/", |target| target.as_str());
    format!("{}://{}{path}", scheme.as_str().unwrap_or("http"), host.as_str().unwrap_or("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, target: &str, headers: &[(&'static str, &str)], body: &[u8]) -> Answer {
        let headers = headers.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
        let request = Request {
            method: method.parse().unwrap(),
            uri: target.parse().unwrap(),
            headers,
            body: body.to_vec(),
            peer: "10.244.0.9".parse().unwrap(),
        };
        answer(&request, "demo-1")
    }

    fn body(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body).unwrap()
    }

    #[test]
    fn statuses_and_methods() {
        let check = |method: &str, target: &str, status: u16| {
            assert_eq!(ask(method, target, &[], b"").status.as_u16(), status, "{method} {target}");
        };
        check("GET", "/", 200);
        check("GET", "/get", 200);
        check("HEAD", "/get", 200);
        check("POST", "/get", 405);
        check("GET", "/get/", 404);
        check("GET", "/get/more", 404);
        check("GET", "/post", 405);
        check("POST", "/post", 200);
        check("DELETE", "/anything/at/all", 200);
        check("GET", "/nothing", 404);
        check("GET", "/healthz", 200);
        check("GET", "/status/418", 418);
        check("PUT", "/status/503", 503);
        check("GET", "/status/99", 400);
        check("GET", "/status/101", 400);
        check("GET", "/status/abc", 400);
        check("OPTIONS", "*", 400);
        check("CONNECT", "example:80", 400);
        check("GET", "/delay/abc", 400);
        check("GET", "/delay/-1", 400);
        check("GET", "/delay/NaN", 400);
        assert!(ask("POST", "/get", &[], b"").headers.contains(&("allow", "GET, HEAD".to_owned())));
        assert!(ask("GET", "/status/302", &[], b"").headers.contains(&("location", "/get".to_owned())));
    }

    #[test]
    fn delays_are_bounded() {
        assert_eq!(ask("GET", "/delay/0.5", &[], b"").delay, Duration::from_millis(500));
        assert_eq!(ask("GET", "/delay/99999999999999999999999", &[], b"").delay, Duration::from_secs(10));
        assert_eq!(ask("GET", "/delay/inf", &[], b"").delay, Duration::from_secs(10));
    }

    #[test]
    fn get_shows_what_arrived() {
        let headers = [("host", "demo:30090"), ("x-test-a", "1"), ("x-test-a", "2")];
        let answer = ask("GET", "/get?a=1&b=x%20y+z&a=2&c", &headers, b"");
        assert_eq!(
            body(&answer),
            json!({
                "args": {"a": ["1", "2"], "b": "x y z", "c": ""},
                "headers": {"Host": "demo:30090", "X-Test-A": "1,2"},
                "origin": "10.244.0.9",
                "url": "http://demo:30090/get?a=1&b=x%20y+z&a=2&c",
            })
        );
        assert!(answer.headers.contains(&("x-kedge-pod", "demo-1".to_owned())));
        assert_eq!(body(&ask("GET", "/hostname", &[], b"")), json!({"hostname": "demo-1"}));
        assert_eq!(body(&ask("GET", "/ip", &[("x-forwarded-for", "1.2.3.4")], b"")), json!({"origin": "1.2.3.4"}));
    }

    #[test]
    fn bodies_are_shown_as_form_json_text_or_bytes() {
        let check = |kind: &str, sent: &[u8], expected: Value| {
            let answer = body(&ask("POST", "/anything", &[("content-type", kind)], sent));
            let shown = json!({"form": answer["form"], "data": answer["data"], "json": answer["json"]});
            assert_eq!(shown, expected);
            assert_eq!(answer["method"], "POST");
        };
        check("application/json", b"{\"a\": 1}", json!({"form": {}, "data": "{\"a\": 1}", "json": {"a": 1}}));
        check(
            "application/x-www-form-urlencoded; charset=utf-8",
            b"a=1&b=%zz",
            json!({"form": {"a": "1", "b": "%zz"}, "data": "", "json": null}),
        );
        check("text/plain", b"hello", json!({"form": {}, "data": "hello", "json": null}));
        check(
            "x/y",
            b"\xff\xfe",
            json!({"form": {}, "data": "data:application/octet-stream;base64,//4=", "json": null}),
        );
    }

    #[test]
    fn the_page_stands_alone_and_escapes_the_name() {
        let request = Request {
            method: Method::GET,
            uri: "/".parse().unwrap(),
            headers: HeaderMap::new(),
            body: Vec::new(),
            peer: "10.0.0.1".parse().unwrap(),
        };
        let page = String::from_utf8(answer(&request, "<b>&").body).unwrap();
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<title>Kedge demo</title>"));
        assert!(page.contains("&lt;b&gt;&amp;") && !page.contains("<b>&"));
        assert!(!page.contains("http://") && !page.contains("https://"), "no asset comes from elsewhere");
    }
}
