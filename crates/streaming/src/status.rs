//! The outcome of an exec or attach, as it travels on the error channel.
//!
//! Pure. A server says it in its protocol's form (a `Status` since version 4, text before), and the client gets it in its
//! own. Texts are upstream's. Invariant: without a word from the server there is no success.

use serde_json::{Value, json};

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Success,
    /// The process ended with this code, not 0.
    Exit(u8),
    /// The server's own Status, to be passed on.
    Status(Value),
    /// It could not be run, or was lost.
    Failed(String),
}

impl Outcome {
    /// Reads what the server wrote to the error stream of this protocol.
    pub(crate) fn read(protocol: &str, message: &[u8]) -> Self {
        let structured = matches!(protocol, "v4.channel.k8s.io" | "v5.channel.k8s.io");
        match (structured, message.is_empty()) {
            (true, false) => Self::read_status(message),
            (false, false) => {
                Self::Failed(format!("error executing remote command: {}", String::from_utf8_lossy(message)))
            }
            // DIVERGES: upstream takes silence for success here, so that an exec whose node dies exits with 0.
            (true, true) => Self::Failed("error reading from error stream: unexpected EOF".to_owned()),
            (false, true) => Self::Success,
        }
    }

    fn read_status(message: &[u8]) -> Self {
        let protocol_error = |text: String| Self::Failed(format!("error stream protocol error: {text}"));
        let status: Value = match serde_json::from_slice(message) {
            Ok(status) => status,
            Err(error) => return protocol_error(format!("{error} in {:?}", String::from_utf8_lossy(message))),
        };
        match status["status"].as_str() {
            Some("Success") => Self::Success,
            Some("Failure") if status["reason"] == "NonZeroExitCode" => {
                let causes = status["details"]["causes"].as_array().map_or(&[][..], Vec::as_slice);
                let Some(cause) = causes.iter().find(|cause| cause["reason"] == "ExitCode") else {
                    return protocol_error("no ExitCode cause given".to_owned());
                };
                match cause["message"].as_str().and_then(|code| code.parse().ok()) {
                    Some(code) => Self::Exit(code),
                    None => protocol_error(format!("invalid exit code value {}", cause["message"])),
                }
            }
            Some("Failure") => Self::Failed(status["message"].as_str().unwrap_or_default().to_owned()),
            _ => protocol_error("unknown error".to_owned()),
        }
    }

    /// The message for the client's error channel; `None` where its protocol says nothing about a success.
    pub(crate) fn write(&self, structured: bool) -> Option<Vec<u8>> {
        let status = self.to_status();
        if structured {
            return Some(status.to_string().into_bytes());
        }
        match self {
            Self::Success => None,
            _ => Some(status["message"].as_str().unwrap_or("unknown error").as_bytes().to_vec()),
        }
    }

    fn to_status(&self) -> Value {
        match self {
            Self::Success => json!({ "metadata": {}, "status": "Success" }),
            Self::Exit(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message":
                    format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
                "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
            Self::Status(status) => status.clone(),
            Self::Failed(text) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {text}"),
                "reason": "InternalError",
                "details": { "causes": [{ "message": text }] },
                "code": 500,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say() {
        let check = |protocol: &str, message: &str, expected: Outcome| {
            assert_eq!(Outcome::read(protocol, message.as_bytes()), expected, "{message}");
        };
        let failed = |text: &str| Outcome::Failed(text.to_owned());
        check("v4.channel.k8s.io", r#"{"metadata":{},"status":"Success"}"#, Outcome::Success);
        check(
            "v4.channel.k8s.io",
            r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#,
            Outcome::Exit(7),
        );
        check(
            "v4.channel.k8s.io",
            r#"{"status":"Failure","reason":"NonZeroExitCode"}"#,
            failed("error stream protocol error: no ExitCode cause given"),
        );
        check("v5.channel.k8s.io", r#"{"status":"Failure","message":"no shell"}"#, failed("no shell"));
        check("v5.channel.k8s.io", "", failed("error reading from error stream: unexpected EOF"));
        check("v3.channel.k8s.io", "", Outcome::Success);
        check("channel.k8s.io", "no shell", failed("error executing remote command: no shell"));
    }

    #[test]
    fn what_clients_hear() {
        let check = |outcome: Outcome, structured: bool, expected: Option<&str>| {
            let message = outcome.write(structured).map(|message| String::from_utf8(message).expect("UTF-8"));
            match (&message, expected) {
                (Some(message), Some(expected)) if structured => {
                    let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
                    assert_eq!(value(message), value(expected));
                }
                _ => assert_eq!(message.as_deref(), expected),
            }
        };
        check(Outcome::Success, true, Some(r#"{"metadata":{},"status":"Success"}"#));
        check(Outcome::Success, false, None);
        check(
            Outcome::Exit(3),
            true,
            Some(
                r#"{"metadata":{},"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code: command terminated with exit code 3","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#,
            ),
        );
        check(
            Outcome::Exit(3),
            false,
            Some("command terminated with non-zero exit code: command terminated with exit code 3"),
        );
        check(Outcome::Failed("x".to_owned()), false, Some("Internal error occurred: x"));
    }
}
