//! `/debug/flags/v`: how much the process logs, set while it runs.
//!
//! The log belongs to the whole process, so there is one way to set it, which whoever starts the log brings along.

use std::sync::OnceLock;

/// Sets how much is logged, as the flag `--v` would; the error says why it cannot.
pub type SetVerbosity = Box<dyn Fn(u32) -> Result<(), String> + Send + Sync>;

static SETTER: OnceLock<SetVerbosity> = OnceLock::new();

/// The list of flags that can be set, as `/debug/flags` shows it.
pub const DEBUG_FLAGS: &str = "<html>\n<head>\n<title>/debug/flags/</title>\n</head>\n<body>\n/debug/flags/<br>\n<br>\nflags:<br>\n\
                               <table>\n<tr>v<br>\n</table>\n<br>\nfull flags configurable<br>\n</body>\n</html>\n";

/// Says how the log is set; a process has one log, so only the first call counts.
pub fn on_verbosity(setter: SetVerbosity) {
    // As above.
    let _ = SETTER.set(setter);
}

/// Answers a request for `/debug/flags/v`, as plain text with a code: a PUT sets how much is logged to what its body says.
pub fn answer_verbosity(is_put: bool, body: &[u8]) -> (u16, String) {
    if !is_put {
        return (406, "unsupported http method".to_owned());
    }
    match set_by(SETTER.get(), &String::from_utf8_lossy(body)) {
        Ok(text) => (200, text),
        Err(text) => (400, text),
    }
}

/// Upstream's words for what came of it.
fn set_by(setter: Option<&SetVerbosity>, body: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("strconv.ParseUint: parsing {body:?}: {why}");
    if body.is_empty() || !body.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong("invalid syntax"));
    }
    let level: u32 = body.parse().map_err(|_| wrong("value out of range"))?;
    let setter = setter.ok_or_else(|| format!("failed set klog.logging.verbosity {body}: the log has no levels"))?;
    setter(level).map_err(|why| format!("failed set klog.logging.verbosity {body}: {why}"))?;
    Ok(format!("successfully set klog.logging.verbosity to {body}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn numbers_are_levels_and_nothing_else_is() {
        let level = Arc::new(AtomicU32::new(0));
        let own = Arc::clone(&level);
        let setter: SetVerbosity = Box::new(move |wanted| match wanted {
            99 => Err("too much".to_owned()),
            wanted => {
                own.store(wanted, Ordering::Relaxed);
                Ok(())
            }
        });
        for (body, answer) in [
            ("4", Ok("successfully set klog.logging.verbosity to 4")),
            ("99", Err("failed set klog.logging.verbosity 99: too much")),
            ("-1", Err("strconv.ParseUint: parsing \"-1\": invalid syntax")),
            ("", Err("strconv.ParseUint: parsing \"\": invalid syntax")),
            ("4294967296", Err("strconv.ParseUint: parsing \"4294967296\": value out of range")),
        ] {
            let expected = answer.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(set_by(Some(&setter), body), expected);
        }
        assert_eq!(level.load(Ordering::Relaxed), 4);
        assert!(set_by(None, "1").is_err());
    }
}
