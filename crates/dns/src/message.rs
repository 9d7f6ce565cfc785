//! Messages: reading questions, writing answers that fit. Pure.
//!
//! Invariant: an answer never is longer than what the client takes, and says so where that cost records.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

/// What everybody takes over UDP.
const PLAIN_MAX: usize = 512;
/// What fits the usual networks without fragments (DNS flag day 2020).
pub(crate) const EDNS_MAX: u16 = 1232;

/// What came in.
#[derive(Debug)]
pub(crate) enum Received {
    /// A question to answer.
    Question(Box<Message>),
    /// Something that gets this answer at once.
    Refusal(Box<Message>),
    /// Something that gets no answer: no message, or itself an answer.
    Garbage,
}

/// Reads a packet.
pub(crate) fn receive(packet: &[u8]) -> Received {
    let Ok(message) = Message::from_vec(packet) else { return malformed(packet) };
    let code = match (&message.edns, message.queries.as_slice()) {
        _ if message.metadata.message_type == MessageType::Response => return Received::Garbage,
        _ if message.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        (Some(edns), _) if edns.version() > 0 => ResponseCode::BADVERS,
        (_, [query]) if query.query_class != DNSClass::IN => ResponseCode::Refused,
        // Zones can't be transferred from here, nor from others through here.
        (_, [query]) if matches!(query.query_type, RecordType::AXFR | RecordType::IXFR) => ResponseCode::Refused,
        (_, [_]) => return Received::Question(Box::new(message)),
        _ => ResponseCode::FormErr,
    };
    Received::Refusal(Box::new(response(&message, code)))
}

/// A packet that can't be read but has a header is answered, so that its sender need not wait.
fn malformed(packet: &[u8]) -> Received {
    let is_query = packet.len() >= 12 && packet[2] & 0x80 == 0;
    if !is_query {
        return Received::Garbage;
    }
    let id = u16::from_be_bytes([packet[0], packet[1]]);
    Received::Refusal(Box::new(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)))
}

/// An empty answer to a message.
pub(crate) fn response(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.checking_disabled = question.metadata.checking_disabled;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.queries.clone_from(&question.queries);
    if let Some(asked) = &question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_MAX);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        answer.edns = Some(edns);
    }
    answer
}

/// The question of a message that was received as one.
pub(crate) fn question(message: &Message) -> &Query {
    message.queries.first().expect("a question has exactly one query")
}

/// How long an answer over UDP may be.
pub(crate) fn udp_limit(question: &Message) -> usize {
    let offered = question.edns.as_ref().map_or(PLAIN_MAX, |edns| usize::from(edns.max_payload()));
    offered.clamp(PLAIN_MAX, usize::from(EDNS_MAX))
}

/// The bytes of an answer, shortened to the limit: first what was not asked for goes, then answers, with the mark that
/// tells the client to ask over TCP.
pub(crate) fn encode(mut answer: Message, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = answer.to_vec().ok()?;
    if bytes.len() > limit && !answer.additionals.is_empty() {
        answer.additionals.clear();
        bytes = answer.to_vec().ok()?;
    }
    while bytes.len() > limit {
        answer.metadata.truncation = true;
        answer.authorities.clear();
        if answer.answers.is_empty() {
            return None;
        }
        let keep = answer.answers.len() * limit / bytes.len();
        answer.answers.truncate(keep.min(answer.answers.len() - 1));
        bytes = answer.to_vec().ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record};

    fn query(kind: RecordType) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii("a.example.").unwrap(), kind));
        message
    }

    fn outcome(message: &Message) -> String {
        match receive(&message.to_vec().unwrap()) {
            Received::Question(_) => "question".to_owned(),
            Received::Refusal(answer) => format!("{:?}", answer.metadata.response_code),
            Received::Garbage => "garbage".to_owned(),
        }
    }

    #[test]
    fn only_plain_questions_are_answered() {
        assert_eq!(outcome(&query(RecordType::A)), "question");
        assert_eq!(outcome(&query(RecordType::AXFR)), "Refused");
        let mut response = query(RecordType::A);
        response.metadata.message_type = MessageType::Response;
        assert_eq!(outcome(&response), "garbage");
        let mut update = query(RecordType::A);
        update.metadata.op_code = OpCode::Notify;
        assert_eq!(outcome(&update), "NotImp");
        let mut two = query(RecordType::A);
        two.add_query(question(&query(RecordType::A)).clone());
        assert_eq!(outcome(&two), "FormErr");
        let mut chaos = query(RecordType::TXT);
        chaos.queries[0].query_class = DNSClass::CH;
        assert_eq!(outcome(&chaos), "Refused");
        let mut future = query(RecordType::A);
        future.set_edns(Edns::new()).edns.as_mut().unwrap().set_version(1);
        assert_eq!(outcome(&future), "BADVERS");
        assert!(matches!(receive(&[1, 2, 3]), Received::Garbage));
        let Received::Refusal(answer) = receive(&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) else {
            panic!("it has a header")
        };
        assert_eq!((answer.metadata.id, answer.metadata.response_code), (0x0707, ResponseCode::FormErr));
    }

    #[test]
    fn long_answers_are_cut_and_say_so() {
        let mut asked = query(RecordType::A);
        let mut answer = response(&asked, ResponseCode::NoError);
        for n in 0..100 {
            let record = Record::from_rdata(Name::from_ascii("a.example.").unwrap(), 5, RData::A(A::new(10, 0, 0, n)));
            answer.add_answer(record.clone());
            answer.add_additional(record);
        }
        let shown = |asked: &Message| {
            let bytes = encode(answer.clone(), udp_limit(asked)).unwrap();
            let read = Message::from_vec(&bytes).unwrap();
            assert!(bytes.len() <= udp_limit(asked));
            (read.metadata.truncation, read.answers.len(), read.additionals.len())
        };
        let (truncated, answers, additionals) = shown(&asked);
        assert!(truncated && answers > 20 && answers < 32 && additionals == 0, "{answers}");
        asked.set_edns(Edns::new()).edns.as_mut().unwrap().set_max_payload(4096);
        let (truncated, answers, _) = shown(&asked);
        assert!(truncated && answers > 60 && answers < 100, "{answers}");
        let whole = Message::from_vec(&encode(answer.clone(), 65535).unwrap()).unwrap();
        assert_eq!((whole.metadata.truncation, whole.answers.len(), whole.additionals.len()), (false, 100, 100));
    }
}
