//! Memory that a process no longer needs, given back to the machine: the pages of code and constants that only the start
//! touched, and what the allocator keeps after a burst.
//!
//! Invariant: nothing that the process can see changes; what is needed again is there again at the next touch.

use std::ops::Range;
use std::time::Duration;

/// mimalloc's `mi_option_arena_eager_commit`.
const ARENA_EAGER_COMMIT: libmimalloc_sys::mi_option_t = 4;

/// Before anything is allocated: mimalloc takes pages from the kernel as they are needed. It would ask for a gigabyte at
/// once, which the kernel gives in huge pages, of which an idle process needs a corner each.
// SAFETY: the section holds addresses of functions of this type, which the C library calls before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static TAKES_LITTLE: extern "C" fn() = take_little;

extern "C" fn take_little() {
    // SAFETY: it sets a number, and no other thread is there yet.
    unsafe { libmimalloc_sys::mi_option_set(ARENA_EAGER_COMMIT, 0) };
}

/// Unmaps the pages of this program's code and constants. They stay in the page cache, and each comes back at its next use.
/// What the loader reads once, to write addresses into other parts, is the larger half of it.
pub fn release_code() {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let Ok(program) = std::env::current_exe() else { return };
    for range in untouched_ranges(&maps, &program.to_string_lossy()) {
        // SAFETY: the range is a whole mapping of this process, as the kernel listed it. It is private, not writable, and
        // without a page that differs from the file's: dropping its pages loses nothing, and the next access reads the
        // same bytes again. Nothing of the program is unmapped or made writable here, so no other thread holds an address
        // that stops being valid.
        unsafe { libc::madvise(range.start as *mut libc::c_void, range.end - range.start, libc::MADV_DONTNEED) };
    }
}

/// Gives pages that the allocators hold but nobody uses back to the kernel: mimalloc's, where the program allocates by it,
/// and the C library's.
pub fn release_heap() {
    // SAFETY: both may be called at any time from any thread; they only touch free memory.
    unsafe {
        libmimalloc_sys::mi_collect(true);
        #[cfg(target_env = "gnu")]
        libc::malloc_trim(0);
    }
}

/// The processor time that this process has used since its start, user and system together.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec` to the address given, which is this function's own.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The mappings of a program's code and constants in the text of `/proc/self/smaps`: private, not writable, and all of
/// their pages those of the file. The loader has written addresses into some, which are left alone.
fn untouched_ranges(maps: &str, program: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut mapping = None;
    for line in maps.lines() {
        if let Some(found) = read_only_range(line, program) {
            mapping = found;
        } else if line.strip_prefix("Anonymous:").is_some_and(|size| size.trim() == "0 kB") {
            ranges.extend(mapping.take());
        }
    }
    ranges
}

/// Whether a line begins a mapping, and if so its range, where it is one of the program that cannot be written.
fn read_only_range(line: &str, program: &str) -> Option<Option<Range<usize>>> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    let is_read_only = matches!(fields.next()?, "r-xp" | "r--p");
    Some((is_read_only && fields.nth(3) == Some(program)).then_some(range))
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
    fn only_what_the_program_s_file_has_goes() {
        let maps = "\
            1000-2000 r--p 00000000 fe:00 12 /usr/bin/kedge\nSize: 4 kB\nAnonymous:             0 kB\nVmFlags: rd mr\n\
            2000-5000 r-xp 00001000 fe:00 12 /usr/bin/kedge\nAnonymous:             0 kB\n\
            5000-6000 r--p 00004000 fe:00 12 /usr/bin/kedge\nAnonymous:             4 kB\n\
            6000-7000 rw-p 00005000 fe:00 12 /usr/bin/kedge\nAnonymous:             0 kB\n\
            7000-8000 r-xp 00000000 fe:00 13 /usr/lib/libc.so.6\nAnonymous:             0 kB\n\
            9000-a000 r-xp 00000000 00:00 0 [vdso]\nAnonymous:             0 kB\n";
        assert_eq!(untouched_ranges(maps, "/usr/bin/kedge"), [0x1000..0x2000, 0x2000..0x5000]);
    }

    #[test]
    fn pages_are_taken_as_they_are_needed() {
        // SAFETY: it reads a number.
        assert_eq!(unsafe { libmimalloc_sys::mi_option_get(ARENA_EAGER_COMMIT) }, 0);
    }

    #[test]
    fn a_process_goes_on_after_it_gave_memory_back() {
        let before: Vec<u64> = (0..100_000).collect();
        release_code();
        release_heap();
        assert_eq!(before.iter().sum::<u64>(), 4_999_950_000);
    }
}
