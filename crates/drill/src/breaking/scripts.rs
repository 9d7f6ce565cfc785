//! The scripts of actions on machines. Arguments are the only thing that differs from one run to the next.

/// Ends the processes of a name, of which the second word of the command line may be asked for.
pub(super) const STOP: &str = "for p in $(pgrep -x \"$1\"); do \
    [ -z \"$2\" ] || [ \"$(tr '\\0' '\\n' < \"/proc/$p/cmdline\" | sed -n 2p)\" = \"$2\" ] || continue; kill -9 \"$p\"; done";
/// The directory and the words of the first such process.
pub(super) const HOW_IT_RUNS: &str = "for p in $(pgrep -x \"$1\"); do \
    [ -z \"$2\" ] || [ \"$(tr '\\0' '\\n' < \"/proc/$p/cmdline\" | sed -n 2p)\" = \"$2\" ] || continue; \
    readlink \"/proc/$p/cwd\" && tr '\\0' '\\n' < \"/proc/$p/cmdline\"; exit; done; exit 1";
pub(super) const MOVE: &str = "set -e; umask 077; mkdir -p \"$(dirname \"$2\")\"; mv -T \"$1\" \"$2\"";
/// Ends by itself after half an hour, or once its mark is gone.
pub(super) const SLOW: &str = "set -e; mkdir -p \"$(dirname \"$2\")\"; : > \"$2\"; ( e=$(( $(date +%s) + 1800 )); \
    while [ -e \"$2\" ] && [ \"$(date +%s)\" -lt $e ]; do for p in $(pgrep -x \"$1\"); do kill -STOP $p; done; sleep \"$3\"; \
    for p in $(pgrep -x \"$1\"); do kill -CONT $p; done; sleep \"$4\"; done; ) </dev/null >/dev/null 2>&1 & echo $! > \"$2.pid\"";
pub(super) const HOLD: &str = "set -e; mkdir -p \"$(dirname \"$1\")\"; setsid \"$2\" demo-app --listen \"0.0.0.0:$3\" \
    </dev/null >/dev/null 2>&1 & echo $! > \"$1\"";
pub(super) const FILL: &str =
    "set -e; mount -t tmpfs -o \"$2\" kedge-drill \"$1\"; cat /dev/zero > \"$1/.kedge-drill-fill\" 2>/dev/null || true";

/// As many as a small file system takes; the last ones fail.
pub(super) const FILL_BY_FILES: &str = "set -e; mount -t tmpfs -o \"$2\" kedge-drill \"$1\"; mkdir \"$1/.kedge-drill-fill\"; i=0; \
    while [ $i -lt 4096 ] && true 2>/dev/null > \"$1/.kedge-drill-fill/$i\"; do i=$((i+1)); done";
