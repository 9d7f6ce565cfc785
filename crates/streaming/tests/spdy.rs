//! Our SPDY client against our SPDY server, in memory.

use std::io::ErrorKind;
use std::sync::Arc;

use kedge_streaming::{Headers, SpdyConfig, SpdyConnection, SpdyError, SpdyStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

fn connect(flow_control: bool) -> (SpdyConnection, SpdyConnection) {
    let (client, server) = duplex(16 * 1024);
    let config = SpdyConfig { flow_control };
    (SpdyConnection::start(client, true, config), SpdyConnection::start(server, false, config))
}

/// Accepts every stream and returns what it is sent.
fn serve_echo(server: SpdyConnection) {
    tokio::spawn(async move {
        while let Some(incoming) = server.accept_stream().await {
            if incoming.headers().get("streamType") == Some("refused") {
                incoming.refuse();
                continue;
            }
            let stream = incoming.accept().await.expect("the client is there");
            tokio::spawn(echo(stream));
        }
    });
}

async fn echo(stream: SpdyStream) {
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::io::copy(&mut read, &mut write).await.expect("both halves are open");
    write.shutdown().await.expect("half close");
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index % 251).expect("small")).collect()
}

async fn send_and_read_back(stream: SpdyStream, sent: &[u8]) {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut got = Vec::new();
    let write = async {
        write.write_all(sent).await.expect("write");
        write.shutdown().await.expect("half close");
    };
    let (_, read) = tokio::join!(write, read.read_to_end(&mut got));
    read.expect("read");
    assert!(got == sent, "got {} of {} bytes", got.len(), sent.len());
}

#[tokio::test]
async fn streams_carry_bytes_both_ways_and_end_one_way_at_a_time() {
    for flow_control in [false, true] {
        let (client, server) = connect(flow_control);
        serve_echo(server);
        let client = Arc::new(client);
        let sent = Arc::new(pattern(3_000_000));
        let streams = (0..4).map(|index| {
            let (client, sent) = (client.clone(), sent.clone());
            tokio::spawn(async move {
                let headers = Headers::new().with("streamType", "data").with("requestID", &index.to_string());
                send_and_read_back(client.open_stream(headers).await.expect("open"), &sent).await;
            })
        });
        for stream in streams.collect::<Vec<_>>() {
            stream.await.expect("the stream's task");
        }
    }
}

#[tokio::test]
async fn headers_arrive_and_numbers_are_odd() {
    let (client, server) = connect(false);
    let opened = tokio::spawn(async move {
        let first = client.open_stream(Headers::new().with("streamType", "error")).await.expect("open");
        let second = client.open_stream(Headers::new().with("Port", "80")).await.expect("open");
        (client, first.id(), second.id(), first, second)
    });
    let first = server.accept_stream().await.expect("a stream");
    assert_eq!(first.headers().get("streamtype"), Some("error"));
    let _first = first.accept().await.expect("accept");
    let second = server.accept_stream().await.expect("a stream");
    assert_eq!(second.headers(), &Headers::new().with("port", "80"));
    let _second = second.accept().await.expect("accept");
    let (_client, first, second, ..) = opened.await.expect("the client's task");
    assert_eq!((first, second), (1, 3));
}

#[tokio::test]
async fn a_refused_stream_is_an_error() {
    let (client, server) = connect(false);
    serve_echo(server);
    let error = client.open_stream(Headers::new().with("streamType", "refused")).await.expect_err("it is refused");
    assert!(matches!(error, SpdyError::Refused), "{error:?}");
    let next = client.open_stream(Headers::new().with("streamType", "data")).await.expect("the next one is not");
    send_and_read_back(next, b"hello").await;
}

#[tokio::test]
async fn pings_are_answered() {
    let (client, server) = connect(false);
    client.ping().await.expect("the server answers");
    server.ping().await.expect("the client answers");
    client.ping().await.expect("again");
}

#[tokio::test]
async fn closing_delivers_what_was_written() {
    let (client, server) = connect(false);
    let sent = pattern(100_000);
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        let incoming = server.accept_stream().await.expect("a stream");
        let mut stream = incoming.accept().await.expect("accept");
        stream.write_all(&sent).await.expect("write");
        stream.shutdown().await.expect("half close");
        server.close().await;
    });
    let mut stream = client.open_stream(Headers::new()).await.expect("open");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.expect("read");
    assert!(got == expected, "got {} bytes", got.len());
    writer.await.expect("the server's task");
    client.closed().await;
    assert!(matches!(client.open_stream(Headers::new()).await, Err(SpdyError::Closed)));
    assert_eq!(stream.write_all(b"x").await.expect_err("it is over").kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_lost_connection_is_no_end_of_file() {
    let (client, server) = connect(false);
    let accepting = tokio::spawn(async move {
        let mut stream = server.accept_stream().await.expect("a stream").accept().await.expect("accept");
        stream.write_all(b"half").await.expect("write");
        (server, stream)
    });
    let mut stream = client.open_stream(Headers::new()).await.expect("open");
    let (server, _accepted) = accepting.await.expect("the server's task");
    let mut got = [0; 4];
    stream.read_exact(&mut got).await.expect("what was sent");
    drop(server);
    let error = stream.read(&mut got).await.expect_err("the stream was not ended");
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(stream.is_reset());
}

#[tokio::test]
async fn a_dropped_stream_is_reset_for_the_peer() {
    let (client, server) = connect(false);
    let accepting = tokio::spawn(async move {
        let stream = server.accept_stream().await.expect("a stream").accept().await.expect("accept");
        (server, stream)
    });
    let stream = client.open_stream(Headers::new()).await.expect("open");
    let (_server, mut accepted) = accepting.await.expect("the server's task");
    drop(stream);
    let mut got = Vec::new();
    accepted.read_to_end(&mut got).await.expect("a cancelled stream reads as ended");
    assert!(accepted.is_reset());
}

#[tokio::test]
async fn an_unread_stream_holds_a_bounded_amount() {
    let (client, server) = connect(false);
    let accepting = tokio::spawn(async move {
        let stream = server.accept_stream().await.expect("a stream").accept().await.expect("accept");
        (server, stream)
    });
    let mut stream = client.open_stream(Headers::new()).await.expect("open");
    let (_server, mut accepted) = accepting.await.expect("the server's task");
    let chunk = pattern(32 * 1024);
    let mut written = 0_usize;
    // When a write stays pending though every other task had its turn many times, nobody makes room.
    loop {
        let turns = async {
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            result = stream.write_all(&chunk) => result.expect("write"),
            () = turns => break,
        }
        written += chunk.len();
        assert!(written < 4 << 20, "the peer takes everything");
    }
    let mut got = vec![0; written];
    accepted.read_exact(&mut got).await.expect("what was written is there");
}

#[tokio::test]
async fn garbage_ends_the_connection() {
    let (mut raw, server) = duplex(1024);
    let server = SpdyConnection::server(server);
    raw.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\x80\x02\x00\x01\x00\x00\x00\x00").await.expect("write");
    drop(raw);
    assert!(server.accept_stream().await.is_none());
    server.closed().await;
}
