//! SPDY frames to bytes and back.
//!
//! Pure: buffers in, frames out, and the other way round. Header blocks are compressed with one zlib stream per direction,
//! so that frames must be coded in the order in which they travel. Invariant: memory is bounded: control frames and header
//! blocks have a limit, data frames are handed out in the pieces in which they arrive.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::spdy::dictionary::dictionary;
use crate::spdy::frame::{Frame, Headers};

const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const FLAG_FIN: u8 = 1;
const HEADER_BYTES: usize = 8;
/// The largest control frame; those of Kubernetes have a few hundred bytes.
const MAX_CONTROL_BYTES: usize = 64 * 1024;
/// The largest header block after decompression.
const MAX_HEADER_BYTES: usize = 256 * 1024;
const MAX_HEADERS: u32 = 256;
const SCRATCH_BYTES: usize = 4096;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Bytes that are no SPDY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is of another version of SPDY.
    #[error("the frame is of SPDY version {0}, not 3")]
    Version(u16),
    /// A control frame is larger than anything Kubernetes sends.
    #[error("a control frame of {0} bytes is too large")]
    TooLarge(usize),
    /// A frame is shorter than its kind needs, or says nonsense.
    #[error("a control frame of type {0} is malformed")]
    Malformed(u16),
    /// The header block could not be decompressed.
    #[error("a header block could not be decompressed")]
    Compression,
}

/// A data frame of which more is to come.
struct Unfinished {
    id: u32,
    fin: bool,
    left: usize,
}

/// Bytes to frames; one per direction of a connection.
pub(crate) struct Decoder {
    inflate: Decompress,
    unfinished: Option<Unfinished>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { inflate: Decompress::new(true), unfinished: None }
    }

    /// Takes the next frame, or the next piece of a data frame, from the input; `None` where more bytes are needed.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            if self.unfinished.is_some() {
                return Ok(self.data_piece(input));
            }
            if input.len() < HEADER_BYTES {
                return Ok(None);
            }
            let word = u32::from_be_bytes([input[0], input[1], input[2], input[3]]);
            let length = usize::from(input[5]) << 16 | usize::from(input[6]) << 8 | usize::from(input[7]);
            let flags = input[4];
            if word >> 31 == 0 {
                input.advance(HEADER_BYTES);
                self.unfinished = Some(Unfinished { id: word, fin: flags & FLAG_FIN != 0, left: length });
                if length == 0 {
                    return Ok(self.data_piece(input));
                }
                continue;
            }
            if length > MAX_CONTROL_BYTES {
                return Err(FrameError::TooLarge(length));
            }
            if input.len() < HEADER_BYTES + length {
                return Ok(None);
            }
            input.advance(HEADER_BYTES);
            let body = input.split_to(length).freeze();
            if let Some(frame) = self.control(word, flags, body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn data_piece(&mut self, input: &mut BytesMut) -> Option<Frame> {
        let frame = self.unfinished.as_mut()?;
        let length = frame.left.min(input.len());
        if length == 0 && frame.left > 0 {
            return None;
        }
        let bytes = input.split_to(length).freeze();
        frame.left -= length;
        let piece = Frame::Data { id: frame.id, fin: frame.fin && frame.left == 0, bytes };
        if frame.left == 0 {
            self.unfinished = None;
        }
        Some(piece)
    }

    /// `None` for a kind of frame that this protocol does not know, which a receiver passes over.
    fn control(&mut self, word: u32, flags: u8, mut body: Bytes) -> Result<Option<Frame>, FrameError> {
        let version = (word >> 16) as u16 & !CONTROL;
        let kind = word as u16;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let needed = match kind {
            SYN_STREAM => 10,
            SYN_REPLY | SETTINGS | PING | HEADERS => 4,
            RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
            _ => return Ok(None),
        };
        if body.len() < needed {
            return Err(FrameError::Malformed(kind));
        }
        let fin = flags & FLAG_FIN != 0;
        // The highest bit of an id is reserved; in SETTINGS the word is a count and in PING all bits count.
        let first = body.get_u32();
        let id = first & 0x7fff_ffff;
        let frame = match kind {
            SYN_STREAM => {
                // The associated stream, the priority and the credential slot mean nothing here.
                body.advance(6);
                Frame::SynStream { id, fin, headers: self.headers(kind, &body)? }
            }
            SYN_REPLY => Frame::SynReply { id, fin, headers: self.headers(kind, &body)? },
            HEADERS => Frame::Headers { id, fin, headers: self.headers(kind, &body)? },
            RST_STREAM => Frame::RstStream { id, status: body.get_u32() },
            PING => Frame::Ping { id: first },
            GOAWAY => Frame::GoAway { last_good: id, status: body.get_u32() },
            WINDOW_UPDATE => Frame::WindowUpdate { id, delta: body.get_u32() & 0x7fff_ffff },
            _ => settings(first, body)?,
        };
        Ok(Some(frame))
    }

    fn headers(&mut self, kind: u16, block: &[u8]) -> Result<Headers, FrameError> {
        let plain = self.inflate(block)?;
        parse_headers(plain).ok_or(FrameError::Malformed(kind))
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Bytes, FrameError> {
        let mut plain = BytesMut::new();
        let mut scratch = [0; SCRATCH_BYTES];
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let result = self.inflate.decompress(block, &mut scratch, FlushDecompress::Sync);
            let read = usize::try_from(self.inflate.total_in() - before_in).expect("no more than was given");
            let written = usize::try_from(self.inflate.total_out() - before_out).expect("no more than fits");
            block = &block[read..];
            plain.extend_from_slice(&scratch[..written]);
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(dictionary()).map_err(|_| FrameError::Compression)?;
                }
                Err(_) => return Err(FrameError::Compression),
                Ok(Status::Ok | Status::BufError) if block.is_empty() && written < SCRATCH_BYTES => {
                    return Ok(plain.freeze());
                }
                Ok(_) if read == 0 && written == 0 => return Err(FrameError::Compression),
                Ok(_) => {}
            }
            if plain.len() > MAX_HEADER_BYTES {
                return Err(FrameError::TooLarge(plain.len()));
            }
        }
    }
}

fn settings(count: u32, mut body: Bytes) -> Result<Frame, FrameError> {
    if body.len() as u64 != u64::from(count) * 8 {
        return Err(FrameError::Malformed(SETTINGS));
    }
    let mut entries = Vec::with_capacity(body.len() / 8);
    while body.has_remaining() {
        // The upper byte holds flags about persistence, which nobody keeps.
        entries.push((body.get_u32() & 0x00ff_ffff, body.get_u32()));
    }
    Ok(Frame::Settings { entries })
}

/// A count, then names and values behind their lengths; the values of one name are parted by NUL.
fn parse_headers(mut block: Bytes) -> Option<Headers> {
    let count = block.try_get_u32().ok()?;
    let mut headers = Headers::new();
    if count > MAX_HEADERS {
        return None;
    }
    for _ in 0..count {
        let name = parse_string(&mut block)?;
        for value in parse_string(&mut block)?.split('\0') {
            headers.push(&name, value);
        }
    }
    Some(headers)
}

fn parse_string(block: &mut Bytes) -> Option<String> {
    let length = usize::try_from(block.try_get_u32().ok()?).ok()?;
    if length > block.len() {
        return None;
    }
    String::from_utf8(block.split_to(length).into()).ok()
}

/// Frames to bytes; one per direction of a connection.
pub(crate) struct Encoder {
    deflate: Compress,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        let mut deflate = Compress::new(Compression::default(), true);
        deflate.set_dictionary(dictionary()).expect("a fresh compressor takes a dictionary");
        Self { deflate }
    }

    /// Appends the frame to the output.
    pub(crate) fn encode(&mut self, frame: &Frame, output: &mut BytesMut) {
        match frame {
            Frame::SynStream { id, fin, headers } => {
                let block = self.header_block(headers);
                start(output, SYN_STREAM, *fin, 10 + block.len());
                output.put_u32(*id);
                // No associated stream, highest priority, no credentials.
                output.put_bytes(0, 6);
                output.put_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => self.with_headers(SYN_REPLY, *id, *fin, headers, output),
            Frame::Headers { id, fin, headers } => self.with_headers(HEADERS, *id, *fin, headers, output),
            Frame::RstStream { id, status } => two_words(output, RST_STREAM, *id, *status),
            Frame::GoAway { last_good, status } => two_words(output, GOAWAY, *last_good, *status),
            Frame::WindowUpdate { id, delta } => two_words(output, WINDOW_UPDATE, *id, *delta),
            Frame::Ping { id } => {
                start(output, PING, false, 4);
                output.put_u32(*id);
            }
            Frame::Settings { entries } => {
                start(output, SETTINGS, false, 4 + entries.len() * 8);
                output.put_u32(u32::try_from(entries.len()).expect("a handful of settings"));
                for (id, value) in entries {
                    output.put_u32(*id);
                    output.put_u32(*value);
                }
            }
            Frame::Data { id, fin, bytes } => {
                output.reserve(HEADER_BYTES + bytes.len());
                output.put_u32(*id);
                put_flags_and_length(output, *fin, bytes.len());
                output.put_slice(bytes);
            }
        }
    }

    fn with_headers(&mut self, kind: u16, id: u32, fin: bool, headers: &Headers, output: &mut BytesMut) {
        let block = self.header_block(headers);
        start(output, kind, fin, 4 + block.len());
        output.put_u32(id);
        output.put_slice(&block);
    }

    fn header_block(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = BytesMut::new();
        plain.put_u32(u32::try_from(headers.iter().len()).expect("a handful of headers"));
        for (name, value) in headers.iter() {
            for text in [name, value] {
                plain.put_u32(u32::try_from(text.len()).expect("headers are short"));
                plain.put_slice(text.as_bytes());
            }
        }
        self.compress(&plain)
    }

    /// Compresses up to a flush, so that the peer can read the block without what follows.
    fn compress(&mut self, mut plain: &[u8]) -> Vec<u8> {
        let mut block = Vec::new();
        let mut scratch = [0; SCRATCH_BYTES];
        loop {
            let (before_in, before_out) = (self.deflate.total_in(), self.deflate.total_out());
            self.deflate
                .compress(plain, &mut scratch, FlushCompress::Sync)
                .expect("compression into a buffer fails only on misuse");
            let read = usize::try_from(self.deflate.total_in() - before_in).expect("no more than was given");
            let written = usize::try_from(self.deflate.total_out() - before_out).expect("no more than fits");
            plain = &plain[read..];
            block.extend_from_slice(&scratch[..written]);
            if plain.is_empty() && written < SCRATCH_BYTES {
                return block;
            }
        }
    }
}

fn start(output: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    output.put_u16(CONTROL | VERSION);
    output.put_u16(kind);
    put_flags_and_length(output, fin, length);
}

fn put_flags_and_length(output: &mut BytesMut, fin: bool, length: usize) {
    let length = u32::try_from(length).ok().filter(|length| *length < 1 << 24).expect("frames are cut before");
    output.put_u32(u32::from(fin) << 24 | length);
}

fn two_words(output: &mut BytesMut, kind: u16, first: u32, second: u32) {
    start(output, kind, false, 8);
    output.put_u32(first);
    output.put_u32(second);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(id: u32, kind: &str) -> Frame {
        Frame::SynStream { id, fin: false, headers: Headers::new().with("streamType", kind) }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
        digits.chunks(2).map(pair).collect()
    }

    /// What zlib itself makes of three header blocks in a row, with the dictionary of the protocol.
    const ZLIB_FRAMES: &str = "80030001 00000028 00000001 00000000 0000
        78bbe3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff
        80030001 00000017 00000003 00000000 0000 c22e555c02cc2e00000000ffff
        80030002 0000000d 00000001 02321800000000ffff";

    #[test]
    fn header_blocks_of_zlib_are_read() {
        let mut input = BytesMut::from(&bytes(ZLIB_FRAMES)[..]);
        let mut decoder = Decoder::new();
        assert_eq!(decoder.decode(&mut input), Ok(Some(stream(1, "error"))));
        assert_eq!(decoder.decode(&mut input), Ok(Some(stream(3, "stdin"))));
        assert_eq!(
            decoder.decode(&mut input),
            Ok(Some(Frame::SynReply { id: 1, fin: false, headers: Headers::new() }))
        );
        assert_eq!(decoder.decode(&mut input), Ok(None));
    }

    #[test]
    fn the_dictionary_is_announced_and_every_block_is_flushed() {
        let mut encoder = Encoder::new();
        let mut output = BytesMut::new();
        encoder.encode(&stream(1, "error"), &mut output);
        assert_eq!(output[18], 0x78, "a zlib stream");
        assert_eq!(output[19] & 0x20, 0x20, "with a dictionary");
        assert_eq!(output[20..24], [0xe3, 0xc6, 0xa7, 0xc2]);
        assert!(output.ends_with(&[0, 0, 0xff, 0xff]), "{output:?}");
        let first = output.len();
        encoder.encode(&stream(3, "error"), &mut output);
        assert!(output.len() - first < first, "the second block knows the first");
        assert!(output.ends_with(&[0, 0, 0xff, 0xff]), "{output:?}");
    }

    #[test]
    fn frames_survive_the_way_there_and_back() {
        let headers = Headers::new().with("port", "80").with("requestid", &"7".repeat(9000));
        let frames = [
            stream(1, "error"),
            Frame::SynReply { id: 1, fin: true, headers: Headers::new() },
            Frame::Headers { id: 1, fin: false, headers },
            Frame::RstStream { id: 3, status: 5 },
            Frame::Settings { entries: vec![(7, 1 << 20), (4, 100)] },
            Frame::Ping { id: 0x8000_0001 },
            Frame::GoAway { last_good: 5, status: 0 },
            Frame::WindowUpdate { id: 0, delta: 65536 },
            Frame::Data { id: 1, fin: false, bytes: Bytes::from_static(b"hello") },
            Frame::Data { id: 1, fin: true, bytes: Bytes::new() },
        ];
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let mut wire = BytesMut::new();
        frames.iter().for_each(|frame| encoder.encode(frame, &mut wire));
        let mut read = Vec::new();
        while let Some(frame) = decoder.decode(&mut wire).expect("our own frames") {
            read.push(frame);
        }
        assert_eq!(read, frames);
    }

    #[test]
    fn frames_may_arrive_byte_by_byte() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let mut wire = BytesMut::new();
        encoder.encode(&stream(1, "data"), &mut wire);
        encoder.encode(&Frame::Data { id: 1, fin: true, bytes: Bytes::from_static(b"ab") }, &mut wire);
        let (mut input, mut read) = (BytesMut::new(), Vec::new());
        for byte in wire {
            input.put_u8(byte);
            read.extend(decoder.decode(&mut input).expect("our own frames"));
        }
        let piece = |fin, text: &'static str| Frame::Data { id: 1, fin, bytes: Bytes::from_static(text.as_bytes()) };
        assert_eq!(read, [stream(1, "data"), piece(false, "a"), piece(true, "b")]);
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |hex: &str, expected: FrameError| {
            let mut input = BytesMut::from(&bytes(hex)[..]);
            assert_eq!(Decoder::new().decode(&mut input), Err(expected), "{hex}");
        };
        check("80020003 00000008 00000001 00000005", FrameError::Version(2));
        check("80030003 00000004 00000001", FrameError::Malformed(RST_STREAM));
        check("80030004 00000004 00000001", FrameError::Malformed(SETTINGS));
        check("80030001 00ffffff", FrameError::TooLarge(0x00ff_ffff));
        check("80030002 00000008 00000001 deadbeef", FrameError::Compression);
        // An unknown kind is passed over.
        let mut input = BytesMut::from(&bytes("8003000a 00000001 00 80030006 00000004 00000001")[..]);
        assert_eq!(Decoder::new().decode(&mut input), Ok(Some(Frame::Ping { id: 1 })));
    }
}
