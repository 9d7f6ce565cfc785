//! The signals that end containers: the API's names, the CRI's numbers and Linux's.
//!
//! Invariant: the order of the list is the CRI's enumeration, which begins with 1.

/// A signal that ends a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal(usize);

/// Names, and Linux's numbers on the machines that Kubernetes runs on.
const SIGNALS: [(&str, u32); 65] = [
    ("SIGABRT", 6),
    ("SIGALRM", 14),
    ("SIGBUS", 7),
    ("SIGCHLD", 17),
    ("SIGCLD", 17),
    ("SIGCONT", 18),
    ("SIGFPE", 8),
    ("SIGHUP", 1),
    ("SIGILL", 4),
    ("SIGINT", 2),
    ("SIGIO", 29),
    ("SIGIOT", 6),
    ("SIGKILL", 9),
    ("SIGPIPE", 13),
    ("SIGPOLL", 29),
    ("SIGPROF", 27),
    ("SIGPWR", 30),
    ("SIGQUIT", 3),
    ("SIGSEGV", 11),
    ("SIGSTKFLT", 16),
    ("SIGSTOP", 19),
    ("SIGSYS", 31),
    ("SIGTERM", 15),
    ("SIGTRAP", 5),
    ("SIGTSTP", 20),
    ("SIGTTIN", 21),
    ("SIGTTOU", 22),
    ("SIGURG", 23),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGVTALRM", 26),
    ("SIGWINCH", 28),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGRTMIN", 34),
    ("SIGRTMIN+1", 35),
    ("SIGRTMIN+2", 36),
    ("SIGRTMIN+3", 37),
    ("SIGRTMIN+4", 38),
    ("SIGRTMIN+5", 39),
    ("SIGRTMIN+6", 40),
    ("SIGRTMIN+7", 41),
    ("SIGRTMIN+8", 42),
    ("SIGRTMIN+9", 43),
    ("SIGRTMIN+10", 44),
    ("SIGRTMIN+11", 45),
    ("SIGRTMIN+12", 46),
    ("SIGRTMIN+13", 47),
    ("SIGRTMIN+14", 48),
    ("SIGRTMIN+15", 49),
    ("SIGRTMAX-14", 50),
    ("SIGRTMAX-13", 51),
    ("SIGRTMAX-12", 52),
    ("SIGRTMAX-11", 53),
    ("SIGRTMAX-10", 54),
    ("SIGRTMAX-9", 55),
    ("SIGRTMAX-8", 56),
    ("SIGRTMAX-7", 57),
    ("SIGRTMAX-6", 58),
    ("SIGRTMAX-5", 59),
    ("SIGRTMAX-4", 60),
    ("SIGRTMAX-3", 61),
    ("SIGRTMAX-2", 62),
    ("SIGRTMAX-1", 63),
    ("SIGRTMAX", 64),
];

impl StopSignal {
    /// The signal of a name such as `SIGUSR1` or `SIGRTMIN+3`.
    pub fn from_name(name: &str) -> Option<Self> {
        SIGNALS.iter().position(|(known, _)| *known == name).map(Self)
    }

    /// The signal that the CRI means by a number; `None` for what it leaves to the runtime.
    pub fn from_cri(number: i32) -> Option<Self> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        (index < SIGNALS.len()).then_some(Self(index))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        SIGNALS[self.0].0
    }

    /// The CRI's number of it.
    pub fn cri(self) -> i32 {
        i32::try_from(self.0 + 1).expect("the list is short")
    }

    /// Linux's number of it.
    pub fn number(self) -> u32 {
        SIGNALS[self.0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_both_numbers() {
        for (name, cri, number) in [
            ("SIGABRT", 1, 6),
            ("SIGKILL", 13, 9),
            ("SIGTERM", 23, 15),
            ("SIGUSR1", 29, 10),
            ("SIGRTMIN", 35, 34),
            ("SIGRTMIN+15", 50, 49),
            ("SIGRTMAX-14", 51, 50),
            ("SIGRTMAX", 65, 64),
        ] {
            let signal = StopSignal::from_name(name).unwrap();
            assert_eq!((signal.name(), signal.cri(), signal.number()), (name, cri, number));
            assert_eq!(StopSignal::from_cri(cri), Some(signal));
        }
        for number in [-1, 0, 66] {
            assert_eq!(StopSignal::from_cri(number), None);
        }
        assert_eq!(StopSignal::from_name("TERM"), None);
    }
}
