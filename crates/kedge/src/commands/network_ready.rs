//! `kedge network-ready`: the readiness probe of the pod network's agent. It prints what the agent complains of, so that the
//! event of the probe says it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::arguments::NetworkReadyFlags;

const PATIENCE: Duration = Duration::from_secs(5);
/// Enough for the text of an event.
const MOST_BYTES: u64 = 8 << 10;

pub(crate) fn run(flags: &NetworkReadyFlags) -> Result<()> {
    let answer = ask(flags.health_address).context("kedge-network is not ready: its agent does not answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => bail!("{}", body.trim()),
    }
}

fn ask(address: std::net::SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(answer: &'static str) -> Result<(), String> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let health_address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 64];
            assert!(stream.read(&mut asked).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let said = run(&NetworkReadyFlags { health_address }).map_err(|error| error.to_string());
        server.join().unwrap();
        said
    }

    #[test]
    fn what_the_agent_complains_of_is_printed() {
        assert_eq!(served("HTTP/1.0 200 OK\r\n\r\nok"), Ok(()));
        let bad = "HTTP/1.1 500 Internal Server Error\r\n\r\nkedge-network is not ready: BGP\n";
        assert_eq!(served(bad), Err("kedge-network is not ready: BGP".to_owned()));
    }
}
