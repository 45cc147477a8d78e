//! A reload as one short line: which one, and what changed or what became of it.

use std::path::Path;

use crate::pipeline::confirm::Evidence;
use crate::text::push_visible;
use hotr_events::{Actor, Reload, ReloadState, Trigger};

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
    push_actors(&mut text, &reload.actors);
    let weak = changes.iter().filter(|change| change.by == Evidence::SizeAndTime).count();
    if weak > 0 {
        text.push_str(&format!("; {weak} judged by size and time, not by content"));
    }
    text
}

/// `, by ansible[99] (deploy)`, for the first two; a process without a known user's name has its number.
fn push_actors(text: &mut String, actors: &[Actor]) {
    for (i, actor) in actors.iter().take(2).enumerate() {
        let mut who = Vec::new();
        push_visible(&mut who, &actor.comm);
        let comm = String::from_utf8_lossy(&who);
        text.push_str(&format!(
            "{}{comm}[{}] ({})",
            if i == 0 { ", by " } else { ", " },
            actor.pid,
            user(actor)
        ));
    }
    if let Some(more @ 1..) = actors.len().checked_sub(2) {
        text.push_str(&format!(" and {more} more"));
    }
}

/// The user of a process; and the one that it logged in as, where that is another.
pub(super) fn user(actor: &Actor) -> String {
    let named = |uid: u32, name: Option<&str>| {
        let mut text = Vec::new();
        name.map_or_else(
            || format!("uid {uid}"),
            |name| {
                push_visible(&mut text, name.as_bytes());
                String::from_utf8_lossy(&text).into_owned()
            },
        )
    };
    let origin = actor.origin.as_deref();
    let mut text = named(actor.uid, origin.and_then(|origin| origin.user.as_deref()));
    if let Some(origin) = origin
        && let Some(uid) = origin.login_uid.filter(|uid| *uid != actor.uid)
    {
        text.push_str(&format!(", login {}", named(uid, origin.login_user.as_deref())));
    }
    text
}

fn short_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let mut text = Vec::new();
    push_visible(&mut text, name.as_encoded_bytes());
    String::from_utf8_lossy(&text).into_owned()
}
