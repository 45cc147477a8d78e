//! How long events waited, in bounded memory: counts in buckets whose width grows with the value.
//!
//! In: microseconds. Out: exact counts, the exact largest value, and percentiles that are too high by at most
//! 1/32 of their value, because a bucket answers with its end.

/// Each power of two has this many buckets; below twice as many, a bucket is one microsecond wide.
const PARTS: u64 = 32;
/// `PARTS` is two to the power of this.
const PARTS_LOG: u32 = PARTS.ilog2();
/// Buckets for every value of 64 bits.
const BUCKETS: usize = PARTS as usize * (64 - PARTS_LOG as usize + 1);

/// See the module. At most 15 KiB, whatever it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// As many as the largest value needs.
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Counts a value.
    pub fn add(&mut self, micros: u64) {
        self.add_to(bucket(micros), 1);
        self.max = self.max.max(micros);
    }

    /// One with these buckets, as [`Self::buckets`] gives them; `None` when none can have them.
    #[must_use]
    pub fn from_buckets(buckets: &[(u64, u64, u64)], max: Option<u64>) -> Option<Self> {
        let mut histogram = Self::default();
        for &(from, to, count) in buckets {
            let at = bucket(from);
            if range(at) != (from, to) || count == 0 || at < histogram.counts.len() {
                return None;
            }
            histogram.count.checked_add(count)?;
            histogram.add_to(at, count);
        }
        histogram.max = max.unwrap_or(0);
        let last = histogram.counts.len().checked_sub(1);
        (max.map(bucket) == last).then_some(histogram)
    }

    fn add_to(&mut self, at: usize, count: u64) {
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += count;
        self.count += count;
    }

    /// How many values there were.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The largest value.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (self.count != 0).then_some(self.max)
    }

    /// So many percent of the values are at most this; see the module for how exact it is.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = u64::try_from((u128::from(self.count) * u128::from(percent)).div_ceil(100)).ok()?;
        let mut before = 0;
        let at = self.counts.iter().position(|count| {
            before += count;
            before >= rank.max(1)
        })?;
        Some(range(at).1.min(self.max))
    }

    /// The buckets with values: the least and the largest value of each, and how many there were.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count != 0);
        filled.map(|(at, count)| {
            let (from, to) = range(at);
            (from, to, *count)
        })
    }

    /// The same in rows for humans: each ends below a power of two, and there are at most twelve. Rows between others are
    /// there although they have no values.
    #[must_use]
    pub fn rows(&self) -> Vec<(u64, u64)> {
        const MOST: u32 = 12;
        let Some((first, _, _)) = self.buckets().next() else { return Vec::new() };
        // Of a value, the power of two that it is below.
        let power = |value: u64| u64::BITS - value.leading_zeros();
        let (low, high) = (power(first), power(self.max));
        let step = (high - low + 1).div_ceil(MOST);
        let mut rows: Vec<(u64, u64)> = (low..=high)
            .step_by(step as usize)
            .map(|at| (1_u64.checked_shl(at + step - 1).unwrap_or(u64::MAX), 0))
            .collect();
        for (from, _, count) in self.buckets() {
            if let Some(row) = rows.iter_mut().find(|row| from < row.0 || row.0 == u64::MAX) {
                row.1 += count;
            }
        }
        rows
    }
}

fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(PARTS_LOG + 1);
    // Below 64 this is the value; above, the six highest bits and how far they are shifted.
    let at = u64::from(shift) * PARTS + (value >> shift);
    usize::try_from(at).unwrap_or(BUCKETS - 1)
}

/// The least and the largest value of a bucket.
fn range(at: usize) -> (u64, u64) {
    let at = at as u64;
    let shift = (at / PARTS).saturating_sub(1);
    let from = (at - shift * PARTS) << shift;
    (from, from + ((1 << shift) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_without_gaps_and_no_wider_than_they_say() {
        let mut next = 0;
        for at in 0..BUCKETS {
            let (from, to) = range(at);
            assert_eq!((from, bucket(from), bucket(to)), (next, at, at));
            assert!(to - from <= from / PARTS, "{from} to {to}");
            next = to.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends with the last value");
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        let mut values: Vec<u64> = (0..5000_u64).map(|n| n * n * 7919 % 1_000_003).collect();
        values.iter().for_each(|value| histogram.add(*value));
        values.sort_unstable();
        for percent in [1, 50, 90, 99, 100] {
            let exact = values[(values.len() * percent as usize).div_ceil(100) - 1];
            let found = histogram.percentile(percent).unwrap();
            assert!(exact <= found && found - exact <= exact / PARTS, "{percent}: {exact} {found}");
        }
        assert_eq!((histogram.count(), histogram.max()), (5000, values.last().copied()));
        assert_eq!(histogram.buckets().map(|bucket| bucket.2).sum::<u64>(), 5000);
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_nothing() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.percentile(50), histogram.max(), histogram.rows().len()), (None, None, 0));
        for value in [0, 1, u64::MAX, u64::MAX / 3] {
            histogram.add(value);
        }
        assert_eq!(histogram.counts.len(), BUCKETS);
        assert_eq!(histogram.percentile(100), Some(u64::MAX));
        let rows = histogram.rows();
        assert!(rows.len() <= 12 && rows.iter().map(|row| row.1).sum::<u64>() == 4, "{rows:?}");
    }

    #[test]
    fn rows_end_at_powers_of_two() {
        let mut histogram = Histogram::default();
        [90, 100, 130, 1000].iter().for_each(|value| histogram.add(*value));
        assert_eq!(histogram.rows(), [(128, 2), (256, 1), (512, 0), (1024, 1)]);
    }

    #[test]
    fn it_comes_back_from_its_buckets() {
        let mut histogram = Histogram::default();
        [0, 70, 71, 72, 100_000].iter().for_each(|value| histogram.add(*value));
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(Histogram::from_buckets(&buckets, Some(100_000)), Some(histogram.clone()));
        for wrong in [Some(1), None] {
            assert_eq!(Histogram::from_buckets(&buckets, wrong), None);
        }
        let reversed: Vec<_> = buckets.iter().rev().copied().collect();
        assert_eq!(Histogram::from_buckets(&reversed, Some(100_000)), None);
        assert_eq!(Histogram::from_buckets(&[(70, 75, 1)], Some(72)), None);
        assert_eq!(Histogram::from_buckets(&[], None), Some(Histogram::default()));
    }
}
