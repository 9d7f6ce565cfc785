//! What an HTTP code means that is no success, in the words of upstream's clients.

/// How much of a body is shown.
const SHOWN: usize = 2048;

/// The text for a code; servers' failures show what they said.
pub(crate) fn of_code(code: u16, body: &[u8]) -> String {
    let text = match code {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        403 => "forbidden",
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        406 => "the server was unable to respond with a content type that the client supports",
        409 => "the server reported a conflict",
        410 => "the resource is no longer available",
        413 => "the request is too large",
        415 => "the body of the request was in an unknown format",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
        }
        _ if code >= 500 => {
            let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).trim().to_owned();
            return format!("an error on the server ({shown:?}) has prevented the request from succeeding");
        }
        _ => return format!("the server responded with the status code {code} but did not return more information"),
    };
    text.to_owned()
}
