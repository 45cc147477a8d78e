//! Seconds since 1970 as hours, minutes and seconds of a time zone.

/// A time zone, and its last answer: a storm has thousands of changes in a second.
#[derive(Debug)]
pub(in crate::output) struct Clock {
    zone: fn(i64) -> (u32, u32, u32),
    last: (i64, (u32, u32, u32)),
}

impl Clock {
    /// The user's time zone, as `localtime` knows it.
    pub(in crate::output) fn local() -> Self {
        Self::new(local)
    }

    fn new(zone: fn(i64) -> (u32, u32, u32)) -> Self {
        Self { zone, last: (0, zone(0)) }
    }

    #[cfg(test)]
    pub(in crate::output) fn utc() -> Self {
        Self::new(utc)
    }

    /// Hours, minutes and seconds at that second.
    pub(in crate::output) fn at(&mut self, secs: i64) -> (u32, u32, u32) {
        if self.last.0 != secs {
            self.last = (secs, (self.zone)(secs));
        }
        self.last.1
    }
}

fn local(secs: i64) -> (u32, u32, u32) {
    let mut parts = std::mem::MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid for the call, and the result is read only when the call has filled it.
    let filled = unsafe { !libc::localtime_r(&raw const secs, parts.as_mut_ptr()).is_null() };
    if !filled {
        return utc(secs);
    }
    // SAFETY: a non-null answer means that every field has been written.
    let parts = unsafe { parts.assume_init() };
    let part = |value: i32| u32::try_from(value).unwrap_or(0);
    (part(parts.tm_hour), part(parts.tm_min), part(parts.tm_sec))
}

fn utc(secs: i64) -> (u32, u32, u32) {
    let second = u32::try_from(secs.rem_euclid(86_400)).expect("a remainder of 86400 fits");
    (second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::{Clock, utc};

    #[test]
    fn a_second_is_split() {
        for (secs, want) in [(0, (0, 0, 0)), (86_399, (23, 59, 59)), (-1, (23, 59, 59)), (3_661, (1, 1, 1))] {
            assert_eq!(utc(secs), want);
        }
    }

    #[test]
    fn the_kept_answer_is_of_the_same_second() {
        let mut clock = Clock::utc();
        assert_eq!([0, 1, 1, 0].map(|secs| clock.at(secs).2), [0, 1, 1, 0]);
    }

    #[test]
    fn the_local_zone_has_the_minutes_of_a_zone() {
        // Every zone in use is a multiple of 15 minutes from UTC, so seconds agree everywhere.
        assert_eq!(Clock::local().at(1_767_323_045).2, 5);
    }
}
