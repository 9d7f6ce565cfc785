//! The wire format: keys, varints and lengths.
//!
//! Knows no types. The invariant: nothing is read past the end, and every length is checked before it is believed.

use std::borrow::Cow;

/// Why bytes are no message; the text is upstream's.
#[derive(Debug, PartialEq)]
pub(super) struct WireError(pub(super) String);

impl WireError {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// How a value stands on the wire. Groups do not exist here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

/// Reads one message.
#[derive(Debug)]
pub(super) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next field number and wire type; `None` at the end of the message.
    pub(super) fn key(&mut self) -> Result<Option<(u64, Wire)>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 || number > 0x1fff_ffff {
            return Err(WireError(format!("proto: illegal tag {number} (wire type {})", key & 7)));
        }
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            5 => Wire::Fixed32,
            other => return Err(WireError(format!("proto: illegal wireType {other}"))),
        };
        Ok(Some((number, wire)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or_else(unexpected_end)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::new("proto: integer overflow"))
    }

    /// A varint that field `name` holds.
    pub(super) fn number(&mut self, wire: Wire, name: &str) -> Result<u64, WireError> {
        expect(wire, Wire::Varint, name)?;
        self.varint()
    }

    /// A double that field `name` holds.
    pub(super) fn double(&mut self, wire: Wire, name: &str) -> Result<f64, WireError> {
        expect(wire, Wire::Fixed64, name)?;
        let bytes = self.take(8)?;
        Ok(f64::from_le_bytes(bytes.try_into().expect("8 bytes were taken")))
    }

    /// What field `name` holds behind a length.
    pub(super) fn bytes(&mut self, wire: Wire, name: &str) -> Result<&'b [u8], WireError> {
        expect(wire, Wire::Bytes, name)?;
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| unexpected_end())?;
        self.take(length)
    }

    /// Text that field `name` holds. What is no UTF-8 is replaced, as Go does when it writes JSON.
    pub(super) fn text(&mut self, wire: Wire, name: &str) -> Result<String, WireError> {
        self.bytes(wire, name).map(String::from_utf8_lossy).map(Cow::into_owned)
    }

    /// Passes over the value of an unknown field.
    pub(super) fn skip(&mut self, wire: Wire) -> Result<(), WireError> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.take(8).map(drop),
            Wire::Bytes => self.bytes(wire, "").map(drop),
            Wire::Fixed32 => self.take(4).map(drop),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(unexpected_end)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// How many bytes a varint takes.
pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn expect(found: Wire, wanted: Wire, name: &str) -> Result<(), WireError> {
    if found == wanted {
        return Ok(());
    }
    Err(WireError(format!("proto: wrong wireType = {} for field {name}", found as u8)))
}

fn unexpected_end() -> WireError {
    WireError::new("unexpected EOF")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_end_where_they_end() {
        let check = |bytes: &[u8], expected: Result<u64, &str>| {
            let found = Reader::new(bytes).varint();
            assert_eq!(found, expected.map_err(WireError::new), "{bytes:?}");
        };
        check(&[0], Ok(0));
        check(&[0xac, 0x02], Ok(300));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Ok(u64::MAX));
        check(&[0x80], Err("unexpected EOF"));
        check(&[0x80; 11], Err("proto: integer overflow"));
    }

    #[test]
    fn keys_that_upstream_refuses_are_refused() {
        let check = |bytes: &[u8], expected: &str| {
            assert_eq!(Reader::new(bytes).key(), Err(WireError::new(expected)), "{bytes:?}");
        };
        check(&[0x00], "proto: illegal tag 0 (wire type 0)");
        check(&[0x0b], "proto: illegal wireType 3");
        check(&[0x0c], "proto: illegal wireType 4");
        check(&[0x0e], "proto: illegal wireType 6");
        assert_eq!(Reader::new(&[]).key(), Ok(None));
    }

    #[test]
    fn lengths_past_the_end_are_refused() {
        assert_eq!(Reader::new(&[5, 1]).bytes(Wire::Bytes, "x"), Err(unexpected_end()));
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Reader::new(&huge).bytes(Wire::Bytes, "x"), Err(unexpected_end()));
        let wrong = Reader::new(&[0]).bytes(Wire::Varint, "spec");
        assert_eq!(wrong, Err(WireError::new("proto: wrong wireType = 0 for field spec")));
    }

    #[test]
    fn a_varints_length_is_known_beforehand() {
        for (value, length) in [(0, 1), (127, 1), (128, 2), (16383, 2), (16384, 3), (u64::MAX, 10)] {
            assert_eq!(varint_len(value), length, "{value}");
        }
    }
}
