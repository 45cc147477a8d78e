//! Returns memory that is no longer needed to the machine.
//!
//! In: the end of something that took much of it for a while. Out: less resident memory.

/// Gives back what was freed: without being asked, the C library keeps most of it for ever. Takes some milliseconds for
/// each 10 MB that are in use.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers are passed, and none become invalid.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// For a whole program, at its start: what is large goes back by itself when it is freed. Otherwise the C library takes
/// the first large block that is freed as a sign to keep all that are not larger.
pub fn keep_nothing_large() {
    #[cfg(target_env = "gnu")]
    // SAFETY: numbers only; refused, everything stays as it is.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// Lets go of pages of the program's own constants. They are read from its file again if they are needed again.
pub(crate) fn let_go(constant: &'static [u8]) {
    let page = rustix::param::page_size();
    let range = constant.as_ptr_range();
    let begin = range.start.addr().next_multiple_of(page);
    let end = range.end.addr() / page * page;
    if begin < end {
        // SAFETY: whole pages inside a constant, which the program's file holds and nobody can have written to: reading
        // one again gives the same bytes.
        unsafe {
            libc::madvise(
                constant.as_ptr().with_addr(begin).cast_mut().cast(),
                end - begin,
                libc::MADV_DONTNEED,
            )
        };
    }
}
