//! Changes to inputs: bits, bytes, ranges, words of the format, pieces of other inputs.
//!
//! Invariant: what comes out is no longer than [`MAX_LENGTH`].

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Longer inputs are cut. Size itself is bounded where bodies are read; what hurts is what little input can do.
const MAX_LENGTH: usize = 16 << 10;

/// Makes inputs out of inputs.
pub(crate) struct Mutator {
    random: StdRng,
    words: &'static [&'static str],
}

impl Mutator {
    pub(crate) fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Self { random: StdRng::seed_from_u64(seed), words }
    }

    /// One of `count`.
    pub(crate) fn pick(&mut self, count: usize) -> usize {
        self.random.random_range(0..count.max(1))
    }

    /// A changed copy.
    pub(crate) fn change(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.pick(4) {
            self.change_once(&mut bytes, other);
        }
        bytes.truncate(MAX_LENGTH);
        bytes
    }

    fn change_once(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.pick(bytes.len() + 1);
        match self.pick(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.pick(8),
            1 if at < bytes.len() => bytes[at] = self.byte(),
            2 => bytes.insert(at, self.byte()),
            3 => drop(bytes.drain(self.range(at, bytes.len()))),
            4 => {
                let piece = bytes[self.range(at, bytes.len())].to_vec();
                let times = [1, 2, 16, 600][self.pick(4)].min(MAX_LENGTH / piece.len().max(1));
                self.insert(bytes, &piece.repeat(times));
            }
            5 => {
                let start = self.pick(other.len() + 1);
                let piece = other[self.range(start, other.len())].to_vec();
                self.insert(bytes, &piece);
            }
            6 => bytes.truncate(at),
            _ => {
                let word = self.words[self.pick(self.words.len())];
                let times = [1, 1, 1, 2, 700][self.pick(5)];
                self.insert(bytes, &word.as_bytes().repeat(times));
            }
        }
    }

    fn insert(&mut self, bytes: &mut Vec<u8>, piece: &[u8]) {
        let at = self.pick(bytes.len() + 1);
        bytes.splice(at..at, piece.iter().copied());
    }

    fn range(&mut self, start: usize, length: usize) -> std::ops::Range<usize> {
        let end = start + self.pick((length - start).min(200) + 1);
        start..end
    }

    fn byte(&mut self) -> u8 {
        match self.pick(3) {
            0 => [0, 0x7f, 0x80, 0xff, b'"', b'{', b'[', b'-', b'0', b'\\', b'\n'][self.pick(11)],
            _ => self.random.random(),
        }
    }
}
