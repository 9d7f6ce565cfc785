//! What the questions of the last rounds say about one path. Pure.

use crate::reach::PodPath;

use super::packet::SMALLEST;

/// So many rounds without an answer are no accident.
const ROUNDS: u32 = 3;
/// Sizes that are tried where the full one does not pass: common MTUs, less what tunnels take.
const SIZES: [u32; 7] = [8950, 1450, 1400, 1350, 1280, 1000, 576];

/// One path.
#[derive(Debug, Clone, Default)]
pub(crate) struct PathWatch {
    wanted: u32,
    is_asked: bool,
    /// What happened in this round.
    got_any: bool,
    largest: u32,
    was_heard: bool,
    /// Rounds in a row.
    silent: u32,
    unheard: u32,
    without_full: u32,
    has_answered: bool,
    /// The largest that arrived in the last round that had an answer.
    passes: u32,
}

impl PathWatch {
    /// The sizes to ask with.
    pub(crate) fn start_round(&mut self, mtu: Option<u32>) -> Vec<u32> {
        let wanted = mtu.unwrap_or(SMALLEST).max(SMALLEST);
        if wanted != self.wanted {
            (self.wanted, self.without_full) = (wanted, 0);
        }
        self.is_asked = true;
        let mut sizes = vec![SMALLEST];
        if self.without_full > 0 && self.silent == 0 {
            sizes.extend(SIZES.into_iter().filter(|size| *size < wanted));
        }
        if wanted > SMALLEST {
            sizes.push(wanted);
        }
        sizes
    }

    /// An answer came; questions of one size have answers of the same.
    pub(crate) fn answered(&mut self, size: u32) {
        self.got_any = true;
        self.largest = self.largest.max(size);
        self.was_heard = true;
    }

    /// The other side asked.
    pub(crate) fn heard(&mut self) {
        self.was_heard = true;
    }

    /// Draws the line under a round.
    pub(crate) fn end_round(&mut self) {
        if !self.is_asked {
            return;
        }
        self.silent = if self.got_any { 0 } else { self.silent.saturating_add(1) };
        self.unheard = if self.was_heard { 0 } else { self.unheard.saturating_add(1) };
        if self.got_any {
            self.has_answered = true;
            self.passes = self.largest;
            self.without_full = if self.largest >= self.wanted { 0 } else { self.without_full.saturating_add(1) };
        }
        (self.got_any, self.largest, self.was_heard) = (false, 0, false);
    }

    pub(crate) fn verdict(&self) -> PodPath {
        match () {
            () if self.silent >= ROUNDS && self.unheard < ROUNDS => PodPath::OneWay,
            () if self.silent >= ROUNDS => PodPath::Silent,
            () if self.without_full >= ROUNDS => PodPath::MtuTooSmall { wanted: self.wanted, passes: self.passes },
            () if self.has_answered => PodPath::Reachable,
            () => PodPath::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of one letter each: `.` for nothing, `h` for a question of the other side, `s` for an answer of the small
    /// size, `f` for both.
    fn check(rounds: &str, expected: PodPath) {
        let mut path = PathWatch::default();
        for round in rounds.chars() {
            let sizes = path.start_round(Some(1500));
            match round {
                'f' => sizes.into_iter().for_each(|size| path.answered(size)),
                's' => sizes.into_iter().filter(|size| *size <= 1400).for_each(|size| path.answered(size)),
                'h' => path.heard(),
                _ => {}
            }
            path.end_round();
        }
        assert_eq!(path.verdict(), expected, "{rounds}");
    }

    #[test]
    fn some_rounds_decide() {
        check("", PodPath::Unknown);
        check("..", PodPath::Unknown);
        check("...", PodPath::Silent);
        check("f", PodPath::Reachable);
        check("f..", PodPath::Reachable);
        check("f...", PodPath::Silent);
        check("f...f", PodPath::Reachable);
        check("hhh", PodPath::OneWay);
        check("fhhh", PodPath::OneWay);
        check("f.h.", PodPath::OneWay);
        check("fs", PodPath::Reachable);
        check("sss", PodPath::MtuTooSmall { wanted: 1500, passes: 1400 });
        check("sssf", PodPath::Reachable);
        check("sss...", PodPath::Silent);
    }

    #[test]
    fn a_smaller_mtu_is_another_question() {
        let mut path = PathWatch::default();
        for _ in 0..3 {
            path.start_round(Some(1500));
            path.answered(1400);
            path.end_round();
        }
        assert!(path.verdict().is_broken());
        assert_eq!(path.start_round(Some(1400)), [64, 1400]);
        path.answered(1400);
        path.end_round();
        assert_eq!(path.verdict(), PodPath::Reachable);
        assert_eq!(path.start_round(None), [64]);
    }
}
