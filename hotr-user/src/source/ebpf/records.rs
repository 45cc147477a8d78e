//! The records in the ring buffer, one by one, as the kernel programs wrote them: what they mean is decided elsewhere.

use std::mem::size_of;

use aya::maps::ring_buf::RingBufItem;
use aya::maps::{MapData, RingBuf};
use hotr_common::record::Record;

/// Reads records until there are none, or the limit is reached.
pub struct Records<'a> {
    ring: Option<&'a mut RingBuf<MapData>>,
    limit: usize,
    read: usize,
}

impl<'a> Records<'a> {
    pub(super) fn new(ring: Option<&'a mut RingBuf<MapData>>, limit: usize) -> Self {
        Self { ring, limit, read: 0 }
    }

    /// The next record. The kernel programs get its room when it is dropped.
    pub fn next(&mut self) -> Option<RawRecord<'_>> {
        if self.read == self.limit {
            return None;
        }
        let item = self.ring.as_deref_mut()?.next()?;
        self.read += 1;
        Some(RawRecord(item))
    }

    /// Number of records so far.
    #[must_use]
    pub fn read(&self) -> usize {
        self.read
    }
}

/// A record in the ring buffer.
pub struct RawRecord<'a>(RingBufItem<'a>);

impl RawRecord<'_> {
    /// Header, path, old path (names from leaf to root, each ended by NUL). `None` for what is too short to be a record.
    #[must_use]
    pub fn parts(&self) -> Option<(Record, &[u8], &[u8])> {
        let (header, payload) = self.0.split_first_chunk::<{ size_of::<Record>() }>()?;
        // SAFETY: `Record` is plain integers, any bytes are a value of it; the read is unaligned.
        let record = unsafe { header.as_ptr().cast::<Record>().read_unaligned() };
        let path_end = usize::from(record.path_len).min(payload.len());
        let old_end = (path_end + usize::from(record.old_len)).min(payload.len());
        Some((record, &payload[..path_end], &payload[path_end..old_end]))
    }
}
