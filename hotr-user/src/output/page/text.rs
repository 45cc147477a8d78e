//! Text in HTML: nothing in it can be markup, leave its place, or be without end.

use std::fmt::Write as _;
use std::path::Path;

use crate::text::push_visible;

/// Longer text is cut, with a word about it.
const MOST: usize = 600;

/// Appends text of anybody.
pub(in crate::output) fn push(html: &mut String, bytes: &[u8]) {
    let mut visible = Vec::new();
    push_visible(&mut visible, &bytes[..bytes.len().min(MOST)]);
    escape(html, &String::from_utf8_lossy(&visible));
    if bytes.len() > MOST {
        let _ = write!(html, "… ({} more bytes)", bytes.len() - MOST);
    }
}

/// Appends a message of hotr's, in which names are visible already.
#[cfg(feature = "verify")]
pub(in crate::output) fn message(html: &mut String, text: &str) {
    escape(html, &crate::text::visible_message(text));
}

fn escape(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
}

/// Appends a name in a direction of its own.
pub(in crate::output) fn name(html: &mut String, bytes: &[u8]) {
    html.push_str("<bdi class=path>");
    push(html, bytes);
    html.push_str("</bdi>");
}

/// Appends a path.
pub(in crate::output) fn path(html: &mut String, path: &Path) {
    name(html, path.as_os_str().as_encoded_bytes());
}

/// A sentence, which may have names in it.
pub(in crate::output) fn sentence(html: &mut String, text: &str) {
    push(html, text.as_bytes());
}
