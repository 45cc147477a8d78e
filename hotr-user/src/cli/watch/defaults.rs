//! The library's defaults, as the help prints them.

use std::sync::LazyLock;

use hotr_user::pipeline::confirm::HashKind;
use hotr_user::watch::WatchOptions;

/// Defaults as words of the command line.
pub(super) struct Defaults {
    pub(super) debounce: String,
    pub(super) settle_max: String,
    pub(super) hash: HashKind,
    pub(super) hash_limit: String,
    pub(super) hash_entries: String,
    pub(super) poll_budget: String,
}

pub(super) static DEFAULTS: LazyLock<Defaults> = LazyLock::new(|| {
    let options = WatchOptions::new(Vec::new());
    Defaults {
        debounce: humantime::format_duration(options.debounce).to_string(),
        settle_max: humantime::format_duration(options.settle_max).to_string(),
        hash: options.confirm.hash,
        hash_limit: size(options.confirm.hash_limit),
        hash_entries: options.confirm.entries.to_string(),
        poll_budget: format!("{}%", options.polling.budget * 100.0),
    }
});

/// Bytes with the largest unit that leaves no rest.
fn size(bytes: u64) -> String {
    let units = [("G", 30), ("M", 20), ("K", 10)];
    let whole = units.iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    whole.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::values;

    #[test]
    fn a_default_is_read_as_what_it_is() {
        let options = WatchOptions::new(Vec::new());
        assert_eq!(values::duration(&DEFAULTS.debounce), Ok(options.debounce));
        assert_eq!(values::duration(&DEFAULTS.settle_max), Ok(options.settle_max));
        assert_eq!(values::size(&DEFAULTS.hash_limit), Ok(options.confirm.hash_limit));
        assert_eq!(values::share(&DEFAULTS.poll_budget), Ok(options.polling.budget));
        for bytes in [0, 1, 1023, 1024, 1025, 3 << 20, 5 << 30, 3 << 40] {
            assert_eq!(values::size(&size(bytes)), Ok(bytes));
        }
    }
}
