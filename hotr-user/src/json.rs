//! A JSON object being written: keys, commas and braces, and nothing that needs memory of its own.
//!
//! In: keys of the contract (plain words) and values. Out: bytes at the end of the printer's buffer.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use crate::text::{push_base64, push_json_string, push_rfc3339, push_u64};

/// An open object; [`Object::close`] writes its end.
pub(crate) struct Object<'a> {
    buf: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn open(buf: &'a mut Vec<u8>) -> Self {
        buf.push(b'{');
        Self { buf, empty: true }
    }

    pub(crate) fn close(self) {
        self.buf.push(b'}');
    }

    /// Writes one object from brace to brace.
    pub(crate) fn whole(buf: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
        let mut object = Object::open(buf);
        fill(&mut object);
        object.close();
    }

    /// Writes a key; the caller appends the value.
    pub(crate) fn key(&mut self, key: &'static str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.buf.push(b',');
        }
        quote_word(self.buf, key);
        self.buf.push(b':');
        self.buf
    }

    /// A value that is one of the contract's words.
    pub(crate) fn word(&mut self, key: &'static str, word: &str) {
        quote_word(self.key(key), word);
    }

    /// A value that may hold anything.
    pub(crate) fn text(&mut self, key: &'static str, text: &[u8]) {
        push_json_string(self.key(key), text);
    }

    pub(crate) fn signed(&mut self, key: &'static str, n: i64) {
        let buf = self.key(key);
        if n < 0 {
            buf.push(b'-');
        }
        push_u64(buf, n.unsigned_abs());
    }

    /// Nothing at all when there is no value.
    pub(crate) fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn object(&mut self, key: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        Object::whole(self.key(key), fill);
    }

    /// A list, printed when it is empty too.
    pub(crate) fn list<T>(&mut self, key: &'static str, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
        let buf = self.key(key);
        buf.push(b'[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                buf.push(b',');
            }
            write(buf, item);
        }
        buf.push(b']');
    }

    pub(crate) fn number(&mut self, key: &'static str, n: u64) {
        push_u64(self.key(key), n);
    }

    pub(crate) fn boolean(&mut self, key: &'static str, value: bool) {
        self.key(key).extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(crate) fn time(&mut self, key: &'static str, time: SystemTime) {
        let buf = self.key(key);
        buf.push(b'"');
        push_rfc3339(buf, time);
        buf.push(b'"');
    }

    pub(crate) fn path(&mut self, key: &'static str, exact_key: &'static str, path: &Path) {
        self.bytes(key, exact_key, path.as_os_str().as_bytes());
    }

    /// Text for reading, and when that is not the exact bytes, these in base64 beside it.
    pub(crate) fn bytes(&mut self, key: &'static str, exact_key: &'static str, bytes: &[u8]) {
        if push_json_string(self.key(key), bytes) {
            let buf = self.key(exact_key);
            buf.push(b'"');
            push_base64(buf, bytes);
            buf.push(b'"');
        }
    }
}

/// Appends a word of the contract, which needs no escaping.
pub(crate) fn quote_word(buf: &mut Vec<u8>, word: &str) {
    buf.push(b'"');
    buf.extend_from_slice(word.as_bytes());
    buf.push(b'"');
}
