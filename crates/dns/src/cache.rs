//! A bounded memory of what other resolvers answered. Pure: the time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

/// How many answers are kept; the oldest goes first.
const ENTRIES_MAX: usize = 2048;
/// How many records an answer may have to be kept.
const RECORDS_MAX: usize = 64;
/// For how long answers are kept at most, in seconds; 0 is not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Those with records.
    pub(crate) success: u32,
    /// Those that say that there are none.
    pub(crate) denial: u32,
}

impl Limits {
    /// As kubeadm's configuration has it.
    pub(crate) const USUAL: Self = Self { success: 30, denial: 30 };
    /// Of a `cache` without a number.
    pub(crate) const CORE_DNS: Self = Self { success: 3600, denial: 1800 };
}

/// For how long after its time an answer may stand in for one that nobody gives (RFC 8767).
const STALE_MAX: Duration = Duration::from_secs(3600);

/// What is asked, in lower case, and whether with DNSSEC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    name: String,
    kind: RecordType,
    dnssec: bool,
}

impl CacheKey {
    pub(crate) fn new(query: &Query, dnssec: bool) -> Self {
        Self { name: query.name.to_ascii().to_ascii_lowercase(), kind: query.query_type, dnssec }
    }
}

struct Entry {
    message: Message,
    stored: Instant,
    ttl: Duration,
}

/// The memory.
#[derive(Default)]
pub(crate) struct Cache {
    entries: HashMap<CacheKey, Entry>,
    order: VecDeque<CacheKey>,
}

impl Cache {
    /// The answer, with what is left of its records' times.
    pub(crate) fn get(&self, key: &CacheKey, now: Instant) -> Option<Message> {
        let entry = self.entries.get(key)?;
        let age = now.saturating_duration_since(entry.stored);
        if age >= entry.ttl {
            return None;
        }
        let mut message = entry.message.clone();
        let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        sections.into_iter().flatten().for_each(|record| {
            record.decrement_ttl(seconds);
        });
        Some(message)
    }

    /// The answer though its time is over, for when nobody gives another one. Nobody is to keep it: its times are zero.
    pub(crate) fn stale(&self, key: &CacheKey, now: Instant) -> Option<Message> {
        let entry = self.entries.get(key)?;
        if now.saturating_duration_since(entry.stored) >= entry.ttl + STALE_MAX {
            return None;
        }
        let mut message = entry.message.clone();
        let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        sections.into_iter().flatten().for_each(|record| record.ttl = 0);
        Some(message)
    }

    /// How many answers with records, and without, it has.
    pub(crate) fn len(&self) -> (usize, usize) {
        let denials = self.entries.values().filter(|entry| is_denial(&entry.message)).count();
        (self.entries.len() - denials, denials)
    }

    /// Keeps an answer, if it is one to keep.
    pub(crate) fn put(&mut self, key: CacheKey, message: &Message, limits: Limits, now: Instant) {
        let Some(ttl) = lifetime(message, limits) else { return };
        let entry = Entry { message: message.clone(), stored: now, ttl };
        if self.entries.insert(key.clone(), entry).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > ENTRIES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }
}

/// Whether an answer says that there is nothing.
pub(crate) fn is_denial(message: &Message) -> bool {
    message.metadata.response_code == ResponseCode::NXDomain || message.answers.is_empty()
}

/// For how long an answer holds; `None` for failures, cut answers, and those that forbid it.
fn lifetime(message: &Message, limits: Limits) -> Option<Duration> {
    let records = message.answers.len() + message.authorities.len() + message.additionals.len();
    if message.metadata.truncation || records > RECORDS_MAX {
        return None;
    }
    let is_negative = is_denial(message);
    let seconds = match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain if is_negative => {
            // RFC 2308: the authority says for how long the news holds; without one it is not kept.
            message.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                _ => None,
            })?
        }
        ResponseCode::NoError => message.answers.iter().map(|record| record.ttl).min()?,
        _ => return None,
    };
    let seconds = seconds.min(if is_negative { limits.denial } else { limits.success });
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, Record};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn key(text: &str) -> CacheKey {
        CacheKey::new(&Query::query(name(text), RecordType::A), false)
    }

    fn positive(ttl: u32) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        message.add_answer(Record::from_rdata(name("a."), ttl, RData::A(A::new(1, 2, 3, 4))));
        message
    }

    #[test]
    fn answers_age_and_go() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.put(key("A.example."), &positive(20), Limits::USUAL, start);
        let at = |cache: &Cache, seconds| {
            cache.get(&key("a.EXAMPLE."), start + Duration::from_secs(seconds)).map(|m| m.answers[0].ttl)
        };
        assert_eq!(at(&cache, 0), Some(20));
        assert_eq!(at(&cache, 19), Some(1));
        assert_eq!(at(&cache, 20), None);
        cache.put(key("a.example."), &positive(9999), Limits::USUAL, start);
        assert_eq!(at(&cache, 29), Some(9970));
        assert_eq!(at(&cache, 30), None);
    }

    #[test]
    fn answers_stand_in_for_an_hour() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.put(key("a.example."), &positive(20), Limits::USUAL, start);
        let at = |seconds| {
            let stale = cache.stale(&key("a.example."), start + Duration::from_secs(seconds));
            stale.map(|message| message.answers[0].ttl)
        };
        assert_eq!((at(0), at(3619), at(3620)), (Some(0), Some(0), None));
        assert!(cache.stale(&key("b.example."), start).is_none());
    }

    #[test]
    fn only_what_may_be_kept_is_kept() {
        let check = |message: Message, expected: Option<u64>| {
            assert_eq!(lifetime(&message, Limits::USUAL), expected.map(Duration::from_secs));
        };
        check(positive(0), None);
        check(Message::response(1, OpCode::Query), None);
        check(Message::error_msg(1, OpCode::Query, ResponseCode::ServFail), None);
        let mut cut = positive(20);
        cut.metadata.truncation = true;
        check(cut, None);
        let mut negative = Message::error_msg(1, OpCode::Query, ResponseCode::NXDomain);
        check(negative.clone(), None);
        let soa = SOA::new(name("a."), name("b."), 1, 2, 3, 4, 7);
        negative.add_authority(Record::from_rdata(name("a."), 60, RData::SOA(soa)));
        check(negative.clone(), Some(7));
        let none = Limits { success: 30, denial: 0 };
        assert_eq!(lifetime(&negative, none), None);
    }

    #[test]
    fn the_oldest_answers_make_room() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        for n in 0..=ENTRIES_MAX {
            cache.put(key(&format!("n{n}.")), &positive(20), Limits::USUAL, start);
        }
        assert_eq!((cache.entries.len(), cache.order.len()), (ENTRIES_MAX, ENTRIES_MAX));
        assert!(cache.get(&key("n0."), start).is_none() && cache.get(&key("n1."), start).is_some());
    }
}
