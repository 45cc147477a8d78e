//! The protocol between an agent and its subscribers, as docs/agent.md describes it: frames, and what is in them.
//!
//! In: bytes. Out: whole frames, or why there will be none. A frame is its length in four bytes, the least significant first,
//! and that many bytes of one JSON object.

use std::borrow::Cow;

use hotr_events::Change;
use serde::{Deserialize, Serialize};

/// The version of the protocol. An agent refuses a subscriber of another one.
pub const VERSION: u32 = 1;

/// Bytes of a frame's length.
const HEAD: usize = size_of::<u32>();
/// Longest frame of a subscriber, in bytes.
pub(super) const LONGEST_REQUEST: usize = 4096;
/// Longest frame of an agent, in bytes: two paths of 4096 bytes, each as JSON may escape it and once more in base64.
pub(super) const LONGEST_EVENT: usize = 256 * 1024;

/// What a subscriber says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Request {
    /// The first frame.
    Hello {
        /// The version of the protocol that the subscriber knows.
        version: u32,
    },
    /// Report changes below the directory whose descriptor comes with this frame.
    Add {
        /// The subscriber's number for it, which no other directory of this connection has.
        root: u32,
    },
    /// Report no more of it.
    Remove {
        /// The directory's number.
        root: u32,
    },
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Event {
    /// The first frame.
    Hello {
        /// The version of the protocol.
        version: u32,
        /// The agent's own version.
        hotr: Cow<'static, str>,
        /// The kind of kernel programs: `fentry`, `kprobe`, `tracepoint` or `mixed`.
        tier: Cow<'static, str>,
    },
    /// From now on changes below this directory are reported.
    Added {
        /// The directory's number.
        root: u32,
    },
    /// They are not, and why.
    Refused {
        /// The directory's number.
        root: u32,
        /// A sentence.
        why: Cow<'static, str>,
    },
    /// Nothing more of this directory follows.
    Removed {
        /// The directory's number.
        root: u32,
    },
    /// A change; its paths are relative to the directory, and the empty path is the directory itself.
    Change {
        /// Its number among the changes of this connection, from 1.
        seq: u64,
        /// The directory's number.
        root: u32,
        /// The change.
        #[serde(flatten)]
        change: Box<Change>,
        /// It was made by a process that the subscriber cannot see.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        outside: bool,
    },
    /// Parts of the directory are not reported; said once in a connection.
    Uncovered {
        /// The directory's number.
        root: u32,
        /// A sentence.
        why: Cow<'static, str>,
    },
    /// Changes were lost.
    Loss {
        /// `slow-subscriber`, `ring-full`, `oversize`, `program-skipped`, `unplaced`.
        reason: Cow<'static, str>,
        /// A sentence.
        why: Cow<'static, str>,
    },
    /// The directory was deleted: nothing more of it follows.
    Gone {
        /// The directory's number.
        root: u32,
    },
    /// The agent ends the connection, and why.
    Error {
        /// A sentence.
        why: Cow<'static, str>,
    },
}

/// Why bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Garbage {
    /// Longer than any frame.
    #[error("a frame of {0} bytes is longer than any of this protocol")]
    Oversized(usize),
    /// No JSON object of the protocol.
    #[error("a frame is no JSON object of this protocol")]
    Unknown,
}

/// Bytes that were read, until they are frames.
#[derive(Debug)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    longest: usize,
}

impl Frames {
    pub(super) const fn new(longest: usize) -> Self {
        Self { bytes: Vec::new(), longest }
    }

    /// Takes what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(super) fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>, Garbage> {
        let Some(head) = self.bytes.first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if length > self.longest {
            return Err(Garbage::Oversized(length));
        }
        let Some(body) = self.bytes.get(HEAD..HEAD + length) else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(|_error| Garbage::Unknown);
        self.bytes.drain(..HEAD + length);
        message.map(Some)
    }

    /// Whether a frame has begun and not ended.
    pub(super) fn has_part(&self) -> bool {
        !self.bytes.is_empty()
    }
}

/// Appends a frame.
pub(super) fn put<T: Serialize>(message: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    let written = serde_json::to_writer(&mut *out, message);
    let length = u32::try_from(out.len() - start - HEAD);
    match (written, length) {
        (Ok(()), Ok(length)) => out[start..start + HEAD].copy_from_slice(&length.to_le_bytes()),
        // Writing to memory does not fail, and no message is that long.
        _ => out.truncate(start),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use hotr_events::Op;

    use super::*;

    #[test]
    fn a_frame_is_read_whole_however_it_comes() {
        let mut bytes = Vec::new();
        put(&Request::Hello { version: VERSION }, &mut bytes);
        put(&Request::Add { root: 7 }, &mut bytes);
        let mut frames = Frames::new(LONGEST_REQUEST);
        let mut found = Vec::new();
        for byte in &bytes {
            frames.push(&[*byte]);
            found.extend(frames.next::<Request>().unwrap());
        }
        assert_eq!(found, [Request::Hello { version: VERSION }, Request::Add { root: 7 }]);
        assert!(!frames.has_part());
    }

    #[test]
    fn what_is_no_frame_is_said_and_not_waited_for() {
        let mut frames = Frames::new(LONGEST_REQUEST);
        frames.push(&u32::MAX.to_le_bytes());
        assert_eq!(frames.next::<Request>(), Err(Garbage::Oversized(u32::MAX as usize)));
        for body in ["", "{}", "[1]", "\"add\"", r#"{"type":"add"}"#, r#"{"type":"add","root":-1}"#, "\u{0}"]
        {
            let mut frames = Frames::new(LONGEST_REQUEST);
            frames.push(&u32::try_from(body.len()).unwrap().to_le_bytes());
            frames.push(body.as_bytes());
            assert_eq!(frames.next::<Request>(), Err(Garbage::Unknown), "{body:?}");
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let change = Change { ..Change::new(Op::Write, PathBuf::from("a/b"), SystemTime::UNIX_EPOCH) };
        let event = Event::Change { seq: 1, root: 2, change: Box::new(change), outside: true };
        let mut bytes = Vec::new();
        put(&event, &mut bytes);
        let mut frames = Frames::new(LONGEST_EVENT);
        frames.push(&bytes);
        assert_eq!(frames.next::<Event>().unwrap(), Some(event));
    }
}
