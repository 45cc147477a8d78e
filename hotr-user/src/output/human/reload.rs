//! A reload as one short line: which one, and what changed or what became of it.

use std::path::Path;

use crate::pipeline::confirm::Evidence;
use crate::text::push_visible;
use hotr_events::{Reload, ReloadState, Trigger};

/// `reload #2: 3 files changed (config.toml and 2 more)`, or how it ended.
#[must_use]
pub fn reload_text(reload: &Reload) -> String {
    let mut text = format!("reload #{}: ", reload.seq);
    if reload.state != ReloadState::Started {
        text.push_str(reload.state.as_str());
        if let Some(status) = reload.status.filter(|status| *status != 0) {
            text.push_str(&format!(", exit status {status}"));
        }
        if let Some(why) = &reload.why {
            text.push_str(&format!(": {why}"));
        }
        return text;
    }
    match reload.trigger {
        Trigger::Start => text.push_str("at the start"),
        Trigger::Request => text.push_str("requested by SIGUSR1"),
        Trigger::Rollback => text.push_str("after a rollback"),
        Trigger::Exit => text.push_str("the command had exited"),
        Trigger::Change => {}
    }
    let changes = reload.changes.as_deref().unwrap_or_default();
    let Some(first) = changes.first() else { return text };
    if reload.trigger != Trigger::Change {
        text.push_str(", ");
    }
    let count = changes.len();
    text.push_str(&if count == 1 {
        "1 file changed (".to_owned()
    } else {
        format!("{count} files changed (")
    });
    text.push_str(&short_name(&first.path));
    if count > 1 {
        text.push_str(&format!(" and {} more", count - 1));
    }
    text.push(')');
    let weak = changes.iter().filter(|change| change.by == Evidence::SizeAndTime).count();
    if weak > 0 {
        text.push_str(&format!("; {weak} judged by size and time, not by content"));
    }
    text
}

fn short_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let mut text = Vec::new();
    push_visible(&mut text, name.as_encoded_bytes());
    String::from_utf8_lossy(&text).into_owned()
}
