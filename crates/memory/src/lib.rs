//! Memory that a process no longer needs, given back to the machine: the pages of code that only the start touched, and
//! what the allocator keeps after a burst.
//!
//! Invariant: nothing that the process can see changes; what is needed again is there again at the next touch.

use std::ops::Range;
use std::time::Duration;

/// Unmaps the pages of this program's code. They stay in the page cache, and each comes back when it runs again.
pub fn release_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Ok(program) = std::env::current_exe() else { return };
    for range in code_ranges(&maps, &program.to_string_lossy()) {
        // SAFETY: the range is a whole mapping of this process, as the kernel listed it. It is private, executable and
        // not writable, so its pages are those of the file: dropping them loses nothing, and the next access reads the
        // same bytes again. Code is never unmapped here, so no other thread holds an address that stops being valid.
        unsafe { libc::madvise(range.start as *mut libc::c_void, range.end - range.start, libc::MADV_DONTNEED) };
    }
}

/// Gives pages that the allocator holds but nobody uses back to the kernel.
pub fn release_heap() {
    // SAFETY: `malloc_trim` may be called at any time from any thread; it only touches free memory.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The processor time that this process has used since its start, user and system together.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec` to the address given, which is this function's own.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The mappings of a program's code in the text of `/proc/self/maps`: private, executable, not writable. Read-only data
/// is left alone, because the loader has written addresses into parts of it.
fn code_ranges(maps: &str, program: &str) -> Vec<Range<usize>> {
    let range = |line: &str| {
        let mut fields = line.split_whitespace();
        let (addresses, mode) = (fields.next()?, fields.next()?);
        if mode != "r-xp" || fields.nth(3) != Some(program) {
            return None;
        }
        let (start, end) = addresses.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    };
    maps.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time() {
        let before = processor_time();
        let mut sum = 0_u64;
        while processor_time() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(processor_time() > before);
    }

    #[test]
    fn only_the_programs_own_code_counts() {
        let maps = "\
            1000-2000 r--p 00000000 fe:00 12 /usr/bin/kedge\n\
            2000-5000 r-xp 00001000 fe:00 12 /usr/bin/kedge\n\
            5000-6000 rw-p 00004000 fe:00 12 /usr/bin/kedge\n\
            7000-8000 r-xp 00000000 fe:00 13 /usr/lib/libc.so.6\n\
            9000-a000 r-xp 00000000 00:00 0 [vdso]\n";
        let ranges = code_ranges(maps, "/usr/bin/kedge");
        assert_eq!((ranges.len(), &ranges[0]), (1, &(0x2000..0x5000)));
    }

    #[test]
    fn a_process_goes_on_after_it_gave_memory_back() {
        let before: Vec<u64> = (0..100_000).collect();
        release_code();
        release_heap();
        assert_eq!(before.iter().sum::<u64>(), 4_999_950_000);
    }
}
