//! The tokens of JSON, read as Go's scanner reads them, with its error texts.
//!
//! Knows nothing of types. The invariant: on success `at` stands right behind what was read.

use serde_json::{Number, Value};

use crate::problems::DecodeError;

/// How deep a document may nest.
// DIVERGES: upstream stops at 10,000. Values here are walked by recursion, and no Kubernetes object is nearly as deep.
pub(crate) const MAX_DEPTH: usize = 500;

/// Reads tokens of one document.
#[derive(Debug)]
pub(crate) struct Lexer<'b> {
    bytes: &'b [u8],
    at: usize,
}

/// A number with its text, as error texts show it.
pub(crate) struct NumberToken<'b> {
    pub(crate) text: &'b str,
    pub(crate) value: Value,
}

impl<'b> Lexer<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte that is no white space, not consumed.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Consumes the byte that `peek` showed.
    pub(crate) fn bump(&mut self) {
        self.at += 1;
    }

    /// The error for the next byte, or for the end.
    pub(crate) fn unexpected(&mut self, context: &str) -> DecodeError {
        match self.peek() {
            Some(byte) => Self::invalid(byte, context),
            None => Self::end(),
        }
    }

    fn invalid(byte: u8, context: &str) -> DecodeError {
        let shown = match byte {
            b'\'' => "'\\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            b'\\' => "'\\\\'".to_owned(),
            b'\n' => "'\\n'".to_owned(),
            b'\r' => "'\\r'".to_owned(),
            b'\t' => "'\\t'".to_owned(),
            0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
            0x80..0xa0 => format!("'\\u{byte:04x}'"),
            _ => format!("'{}'", char::from(byte)),
        };
        DecodeError::Syntax(format!("invalid character {shown} {context}"))
    }

    fn end() -> DecodeError {
        DecodeError::Syntax("unexpected end of JSON input".to_owned())
    }

    /// Whatever may follow the document is an error.
    pub(crate) fn finish(&mut self) -> Result<(), DecodeError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("after top-level value")),
        }
    }

    /// The key of the next entry and its colon; `None` at the end of the object. `first` right after `{`.
    pub(crate) fn next_key(&mut self, first: bool) -> Result<Option<String>, DecodeError> {
        match self.peek() {
            Some(b'}') => {
                self.bump();
                return Ok(None);
            }
            Some(b',') if !first => {
                self.bump();
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected("looking for beginning of object key string"));
                }
            }
            Some(b'"') if first => {}
            _ if first => return Err(self.unexpected("looking for beginning of object key string")),
            _ => return Err(self.unexpected("after object key:value pair")),
        }
        let key = self.string()?;
        match self.peek() {
            Some(b':') => self.bump(),
            _ => return Err(self.unexpected("after object key")),
        }
        Ok(Some(key))
    }

    /// Whether another list item follows. `first` right after `[`.
    pub(crate) fn next_item(&mut self, first: bool) -> Result<bool, DecodeError> {
        match self.peek() {
            Some(b']') => {
                self.bump();
                Ok(false)
            }
            Some(b',') if !first => {
                self.bump();
                Ok(true)
            }
            _ if first => Ok(true),
            _ => Err(self.unexpected("after array element")),
        }
    }

    /// `true`, `false` or `null`.
    pub(crate) fn word(&mut self) -> Result<Value, DecodeError> {
        let (word, value) = match self.peek() {
            Some(b't') => ("true", Value::Bool(true)),
            Some(b'f') => ("false", Value::Bool(false)),
            _ => ("null", Value::Null),
        };
        for expected in word.bytes() {
            match self.bytes.get(self.at) {
                Some(byte) if *byte == expected => self.at += 1,
                Some(byte) => {
                    let context = format!("in literal {word} (expecting '{}')", char::from(expected));
                    return Err(Self::invalid(*byte, &context));
                }
                None => return Err(Self::end()),
            }
        }
        Ok(value)
    }

    /// A number: an integer where it has no point and no exponent and fits, else floating point.
    pub(crate) fn number(&mut self) -> Result<NumberToken<'b>, DecodeError> {
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits("in numeric literal")?,
        }
        let mut integral = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            integral = false;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            integral = false;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).expect("digits are ASCII");
        let value = match text.parse::<i64>() {
            Ok(integer) if integral => Value::from(integer),
            _ => text.parse::<f64>().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number),
        };
        match value {
            Value::Null => {
                Err(DecodeError::Type(format!("json: cannot unmarshal number {text} into Go value of type float64")))
            }
            value => Ok(NumberToken { text, value }),
        }
    }

    fn digits(&mut self, context: &str) -> Result<(), DecodeError> {
        match self.bytes.get(self.at) {
            Some(b'0'..=b'9') => {}
            Some(byte) => return Err(Self::invalid(*byte, context)),
            None => return Err(Self::end()),
        }
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    /// A string; invalid UTF-8 and lone surrogates become U+FFFD.
    pub(crate) fn string(&mut self) -> Result<String, DecodeError> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let text = String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned();
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => return self.escaped_string(start),
                Some(byte) if *byte < 0x20 => return Err(Self::invalid(*byte, "in string literal")),
                Some(_) => self.at += 1,
                None => return Err(Self::end()),
            }
        }
    }

    fn escaped_string(&mut self, start: usize) -> Result<String, DecodeError> {
        let mut text = self.bytes[start..self.at].to_vec();
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match String::from_utf8(text) {
                        Ok(text) => text,
                        Err(invalid) => String::from_utf8_lossy(invalid.as_bytes()).into_owned(),
                    });
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escape()?;
                    text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(byte) if *byte < 0x20 => return Err(Self::invalid(*byte, "in string literal")),
                Some(byte) => {
                    text.push(*byte);
                    self.at += 1;
                }
                None => return Err(Self::end()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or_else(Self::end)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                return Ok(self.complete(first)?.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            _ => return Err(Self::invalid(byte, "in string escape code")),
        })
    }

    /// The character of a `\u` escape, with the second half of a pair where there is one.
    fn complete(&mut self, first: u32) -> Result<Option<char>, DecodeError> {
        if !(0xd800..0xdc00).contains(&first) || !self.bytes[self.at..].starts_with(b"\\u") {
            return Ok(char::from_u32(first));
        }
        let before = self.at;
        self.at += 2;
        let second = self.hex()?;
        if (0xdc00..0xe000).contains(&second) {
            return Ok(char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)));
        }
        self.at = before;
        Ok(None)
    }

    fn hex(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for _ in 0..4 {
            let byte = *self.bytes.get(self.at).ok_or_else(Self::end)?;
            let digit = char::from(byte)
                .to_digit(16)
                .ok_or_else(|| Self::invalid(byte, "in \\u hexadecimal character escape"))?;
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }
}
