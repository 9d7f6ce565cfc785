//! The streams of exec and attach on a SPDY connection.
//!
//! It opens them and copies nothing. Invariant: all streams are open before one is used, for a server starts to read only
//! when it has them all.

use crate::spdy::connection::{SpdyConnection, SpdyError};
use crate::spdy::frame::Headers;
use crate::spdy::stream::SpdyStream;

/// Which streams an exec or attach has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// The client sends input.
    pub stdin: bool,
    /// The client wants the output.
    pub stdout: bool,
    /// The client wants the error output; with a terminal there is none.
    pub stderr: bool,
    /// The process has a terminal.
    pub tty: bool,
}

impl StreamOptions {
    /// Reads the query of a `pods/exec` or `pods/attach` request, or of the kubelet's: `stdin=true&stdout=1`.
    pub fn from_query(query: &str) -> Self {
        let mut options = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let set = matches!(value, "1" | "true" | "True" | "TRUE" | "t" | "T");
            match name {
                "stdin" | "input" => options.stdin = set,
                "stdout" | "output" => options.stdout = set,
                "stderr" | "error" => options.stderr = set,
                "tty" => options.tty = set,
                _ => {}
            }
        }
        options.stderr &= !options.tty;
        options
    }
}

/// The streams of one exec or attach, from the side of the one who asks.
#[derive(Debug)]
pub struct RemoteCommand {
    /// Tells the outcome, at the end.
    pub error: SpdyStream,
    /// Where the input goes; shutting it down ends the process's input.
    pub stdin: Option<SpdyStream>,
    /// Where the output comes from.
    pub stdout: Option<SpdyStream>,
    /// Where the error output comes from.
    pub stderr: Option<SpdyStream>,
    /// Takes the size of the terminal as JSON, `{"Width":80,"Height":24}`, whenever it changes.
    pub resize: Option<SpdyStream>,
}

impl RemoteCommand {
    /// Opens what the options ask for and the protocol knows.
    pub async fn open(connection: &SpdyConnection, protocol: &str, options: StreamOptions) -> Result<Self, SpdyError> {
        let resizes = !matches!(protocol, "channel.k8s.io" | "v2.channel.k8s.io" | "");
        let open = async |wanted: bool, kind: &str| match wanted {
            true => connection.open_stream(Headers::new().with("streamType", kind)).await.map(Some),
            false => Ok(None),
        };
        Ok(Self {
            error: connection.open_stream(Headers::new().with("streamType", "error")).await?,
            stdin: open(options.stdin, "stdin").await?,
            stdout: open(options.stdout, "stdout").await?,
            stderr: open(options.stderr && !options.tty, "stderr").await?,
            resize: open(options.tty && resizes, "resize").await?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let check = |query: &str, stdin, stdout, stderr, tty| {
            assert_eq!(StreamOptions::from_query(query), StreamOptions { stdin, stdout, stderr, tty }, "{query}");
        };
        check("command=ls&stdin=true&stdout=true&stderr=true", true, true, true, false);
        check("command=sh&stdin=true&stdout=true&stderr=true&tty=true", true, true, false, true);
        check("input=1&output=1&error=1&tty=0", true, true, true, false);
        check("command=stdin&stdout=false", false, false, false, false);
        check("", false, false, false, false);
    }
}
