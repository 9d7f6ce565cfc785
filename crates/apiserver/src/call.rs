//! One request on its way through the server: who asks, for what, and the body that is still to be read.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use http::{Extensions, HeaderMap, HeaderValue, Method};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use jiff::Timestamp;
use kedge_meta::{ApiStatus, StatusReason, UserInfo};
use kedge_schema::FieldValidation;
use parking_lot::Mutex;

use crate::admission::Notes;
use crate::audit::Recorder;
use crate::body::BoxError;
use crate::flow::{Classified, Place};
use crate::metrics::Running;
use crate::negotiate::{self, Accepted, Encoding};
use crate::query::Query;
use crate::target::{ResourceTarget, Target};

/// A request body, whatever it came from.
pub(crate) type Payload = UnsyncBoxBody<Bytes, BoxError>;

/// A request.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// As it was sent, percent-encoded.
    pub(crate) path: String,
    pub(crate) raw_query: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) user: UserInfo,
    pub(crate) target: Target,
    /// The API verb; for what is no resource the method in small letters.
    pub(crate) verb: &'static str,
    pub(crate) now: Timestamp,
    /// Texts for `Warning` headers.
    pub(crate) warnings: Vec<String>,
    /// What admission leaves for whoever asked.
    pub(crate) notes: Arc<Notes>,
    /// What it is known by in all logs.
    pub(crate) audit_id: HeaderValue,
    /// Writes down what it does, where that is wanted.
    pub(crate) recorder: Option<Arc<Recorder>>,
    /// Counts it for as long as it goes on, where that may be long.
    pub(crate) running: Option<Arc<Running>>,
    /// Under which schema and level it runs, once that is known.
    pub(crate) classified: Option<Classified>,
    /// Its place among those that run, until something else keeps it.
    pub(crate) place: Option<Place>,
    /// In a lock only so that a request can be shared between threads.
    pub(crate) payload: Mutex<Payload>,
}

impl Call {
    /// The parts of the resource path. Only called where there is one.
    pub(crate) fn resource(&self) -> &ResourceTarget {
        match &self.target {
            Target::Resource(target) => target,
            Target::Other => unreachable!("handlers of resources are called for resource paths only"),
        }
    }

    pub(crate) fn accepted(&self) -> Result<Accepted, ApiStatus> {
        negotiate::accepted(&self.headers, &self.query)
    }

    /// The encoding of an answer that has no other form than the object; 406 before anything is done.
    pub(crate) fn accepted_object(&self) -> Result<Encoding, ApiStatus> {
        negotiate::accepted_object(&self.headers, &self.query)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// What is to be let go when the request has ended, where it goes on after its answer.
    pub(crate) fn kept(&self) -> Box<dyn Send + Sync> {
        Box::new((self.recorder.clone(), self.running.clone()))
    }

    /// The body that is still to be read.
    pub(crate) fn take_payload(&mut self) -> Payload {
        std::mem::take(self.payload.get_mut())
    }

    /// Reads the whole body, up to `limit` bytes.
    pub(crate) async fn read_body(&mut self, limit: usize) -> Result<Bytes, ApiStatus> {
        let mut payload = self.take_payload();
        let body = read_body(&mut payload, limit).await?;
        if let Some(recorder) = &self.recorder {
            recorder.sent(self.verb, &self.headers, &body);
        }
        Ok(body)
    }

    /// How unknown and duplicate fields are taken.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, ApiStatus> {
        let Some(text) = self.query.non_empty("fieldValidation") else { return Ok(FieldValidation::Warn) };
        FieldValidation::parse(text).ok_or_else(|| {
            let path = kedge_meta::FieldPath::new("fieldValidation");
            let supported = ["", "Ignore", "Strict", "Warn"];
            let error = kedge_meta::FieldError::not_supported(&path, &serde_json::json!(text), &supported);
            ApiStatus::invalid("meta.k8s.io", "CreateOptions", "", &[error])
        })
    }

    /// Who owns the fields that this request writes: `fieldManager`, or what the user agent begins with.
    pub(crate) fn field_manager(&self) -> String {
        if let Some(manager) = self.query.non_empty("fieldManager") {
            return manager.to_owned();
        }
        let agent = self.header("user-agent");
        let agent = agent.split_once('/').map_or(agent, |(name, _)| name);
        let printable: String = agent.chars().filter(|c| !c.is_control()).take(128).collect();
        if printable.is_empty() { "unknown".to_owned() } else { printable }
    }
}

async fn read_body(payload: &mut Payload, limit: usize) -> Result<Bytes, ApiStatus> {
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = payload.frame().await {
        let frame =
            frame.map_err(|error| ApiStatus::bad_request(format!("error reading the request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > limit {
            return Err(too_large(limit));
        }
        // Most bodies are one frame and are not copied.
        match first.take() {
            None if joined.is_empty() => first = Some(data),
            None => joined.extend_from_slice(&data),
            Some(first) => {
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| joined.freeze()))
}

fn too_large(limit: usize) -> ApiStatus {
    let text = format!("Request entity too large: limit is {limit}");
    ApiStatus::new(413, StatusReason::RequestEntityTooLarge, text)
}

/// Any body as a [`Payload`].
pub(crate) fn payload<B>(body: B) -> Payload
where
    B: http_body::Body + Send + 'static,
    B::Data: Buf,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        return Payload::default();
    }
    let to_bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
    UnsyncBoxBody::new(body.map_frame(move |frame| frame.map_data(to_bytes)).map_err(Into::into))
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    async fn check(frames: &[&'static str], limit: usize, expected: Result<&str, u16>) {
        let frames: Vec<_> =
            frames.iter().map(|text| Ok::<_, BoxError>(Frame::data(Bytes::from_static(text.as_bytes())))).collect();
        let mut payload = payload(StreamBody::new(stream::iter(frames)));
        let read = read_body(&mut payload, limit).await;
        assert_eq!(read.as_deref().map_err(|status| status.code), expected.map(str::as_bytes));
    }

    #[tokio::test]
    async fn bodies_are_read_up_to_the_limit() {
        check(&[], 5, Ok("")).await;
        check(&["abc"], 5, Ok("abc")).await;
        check(&["ab", "c", "de"], 5, Ok("abcde")).await;
        check(&["abc", "def"], 5, Err(413)).await;
    }
}
