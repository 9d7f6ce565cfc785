//! Reading ahead: a thread reads, or unpacks, while another works on what was read.
//!
//! Invariant: bytes come in their order, and an error where it stood; no more than a few blocks wait.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Bytes of a block.
const BLOCK: usize = 256 * 1024;
/// Blocks that wait.
const WAITING: usize = 8;

/// What a thread reads ahead.
pub(crate) struct Ahead {
    blocks: Receiver<io::Result<Vec<u8>>>,
    /// Taken when it has ended.
    thread: Option<JoinHandle<()>>,
    block: Vec<u8>,
    /// Bytes of the block that are used up.
    used: usize,
}

impl Ahead {
    /// Starts the thread; it ends with its source, or when nobody wants more of it.
    ///
    /// # Errors
    /// Where there can be no further thread.
    pub(crate) fn spawn(source: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, blocks) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("read-ahead".to_owned()).spawn(move || read(source, &sender))?;
        Ok(Self { blocks, thread: Some(thread), block: Vec::new(), used: 0 })
    }
}

fn read(mut source: impl Read, blocks: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        let ended = source.by_ref().take(BLOCK as u64).read_to_end(&mut block);
        let is_last = block.len() < BLOCK;
        if !block.is_empty() && blocks.send(Ok(block)).is_err() {
            return;
        }
        if let Err(error) = ended {
            // Nobody may be left to hear it.
            let _ = blocks.send(Err(error));
            return;
        }
        if is_last {
            return;
        }
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.block.len() {
            (self.block, self.used) = (Vec::new(), 0);
            match self.blocks.recv() {
                Ok(block) => self.block = block?,
                Err(_) => {
                    let is_whole = self.thread.take().is_none_or(|thread| thread.join().is_ok());
                    is_whole.then_some(()).ok_or_else(|| io::Error::other("it could not be read to its end"))?;
                }
            }
        }
        Ok(&self.block[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used = (self.used + count).min(self.block.len());
    }
}

impl Read for Ahead {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(to)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives some bytes, then an error or a panic.
    struct Broken(usize, bool);

    impl Read for Broken {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                assert!(!self.1, "as wanted");
                return Err(io::Error::other("broken"));
            }
            let count = self.0.min(to.len());
            to[..count].fill(b'x');
            self.0 -= count;
            Ok(count)
        }
    }

    #[test]
    fn bytes_come_whole_and_in_their_order() {
        for size in [0, 1, BLOCK, 3 * BLOCK + 7, 20 * BLOCK] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut read = Vec::new();
            let mut ahead = Ahead::spawn(io::Cursor::new(bytes.clone())).expect("a thread");
            ahead.read_to_end(&mut read).expect("it is read");
            assert!(read == bytes, "{size}");
            assert_eq!(ahead.fill_buf().expect("it stays at its end").len(), 0);
        }
    }

    #[test]
    fn an_error_comes_after_what_stood_before_it() {
        for (panics, wanted) in [(false, "broken"), (true, "it could not be read to its end")] {
            let mut read = Vec::new();
            let ended = Ahead::spawn(Broken(BLOCK + 3, panics)).expect("a thread").read_to_end(&mut read);
            let whole = if panics { BLOCK } else { BLOCK + 3 };
            assert_eq!((read.len(), ended.expect_err("it is broken").to_string().as_str()), (whole, wanted));
        }
    }

    #[test]
    fn nobody_need_read_to_the_end() {
        let mut ahead = Ahead::spawn(io::repeat(b'x')).expect("a thread");
        assert_eq!(ahead.fill_buf().expect("it is read").len(), BLOCK);
    }
}
