//! gzip for large answers, where the client takes it.
//!
//! As upstream: level 1, only above [`THRESHOLD`], never for watches and streams.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};
use http::{HeaderMap, Response};

use crate::body::{Body, BoxError};

/// Smaller answers are not worth it.
const THRESHOLD: usize = 128 << 10;

/// Compresses an answer if that is wanted and worth it.
pub(crate) fn compress(mut response: Response<Body>, request: &HeaderMap, streams: bool) -> Response<Body> {
    let large = response.body().length().is_some_and(|length| length > THRESHOLD);
    if streams || !large || response.headers().contains_key(CONTENT_ENCODING) || !accepts_gzip(request) {
        return response;
    }
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response.headers_mut().remove(CONTENT_LENGTH);
    response.map(|body| {
        let encoder = GzEncoder::new(Vec::new(), Compression::new(1));
        let state = Some((body, encoder));
        Body::stream(stream::unfold(state, |state| async move {
            let (body, encoder) = state?;
            next(body, encoder)
        }))
    })
}

type Encoder = GzEncoder<Vec<u8>>;
type Step = (Result<Bytes, BoxError>, Option<(Body, Encoder)>);

/// The next compressed bytes, and what is left.
fn next(mut body: Body, mut encoder: Encoder) -> Option<Step> {
    while let Some(bytes) = body.next_bytes() {
        if let Err(error) = encoder.write_all(&bytes) {
            return Some((Err(error.into()), None));
        }
        if !encoder.get_ref().is_empty() {
            let compressed = Bytes::from(std::mem::take(encoder.get_mut()));
            return Some((Ok(compressed), Some((body, encoder))));
        }
    }
    Some((encoder.finish().map(Bytes::from).map_err(Into::into), None))
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "gzip"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;

    use super::*;

    async fn check(length: usize, accept: &str, compressed: bool) {
        let pieces: Vec<Bytes> = (0..length / 1000).map(|i| Bytes::from(vec![b'a' + (i % 7) as u8; 1000])).collect();
        let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
        let mut request = HeaderMap::new();
        request.insert(ACCEPT_ENCODING, accept.parse().unwrap());
        let response = compress(Response::new(Body::pieces(pieces)), &request, false);
        assert_eq!(response.headers().contains_key(CONTENT_ENCODING), compressed, "{length} {accept}");
        let sent = response.into_body().collect().await.unwrap().to_bytes();
        let mut read = sent.to_vec();
        if compressed {
            read.clear();
            GzDecoder::new(&sent[..]).read_to_end(&mut read).unwrap();
        }
        assert_eq!(read, whole);
    }

    #[tokio::test]
    async fn large_answers_are_compressed_where_the_client_takes_it() {
        check(200_000, "gzip", true).await;
        check(200_000, "br;q=1.0, gzip;q=0.8", true).await;
        check(200_000, "identity", false).await;
        check(100_000, "gzip", false).await;
    }
}
