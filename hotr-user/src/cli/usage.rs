//! clap's answers: help and version as they are, a wrong command line as one line.

use std::io::{self, Write};

use clap::error::ErrorKind;

use super::{Status, say};

/// Prints clap's message and returns its status.
pub(super) fn report(error: &clap::Error) -> Status {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has gone has seen enough of the help.
            let _ = write!(io::stdout().lock(), "{}", error.render());
            Status::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = write!(io::stderr().lock(), "{}", error.render());
            Status::Usage
        }
        _ => {
            let command = std::env::args_os().nth(1).and_then(|word| word.into_string().ok());
            say(&one_line(&error.render().to_string(), command.as_deref()));
            Status::Usage
        }
    }
}

/// The sentences of a clap error, without its usage block, and where to read more.
fn one_line(rendered: &str, command: Option<&str>) -> String {
    let mut line = String::new();
    let mut after_colon = false;
    for part in rendered.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if part.starts_with("Usage:") || part.starts_with("For more information") {
            break;
        }
        let part = part.strip_prefix("error: ").or_else(|| part.strip_prefix("tip: ")).unwrap_or(part);
        let inside = part.starts_with('[');
        if !line.is_empty() {
            line.push_str(if after_colon || inside { " " } else { "; " });
        }
        line.push_str(part);
        after_colon = part.ends_with(':');
    }
    let known = [
        "trace",
        "watch",
        "doctor",
        "diagnose",
        "relay",
        "verify",
        "agent",
        "subscribe",
        "completions",
        "man",
    ];
    match command.filter(|word| known.contains(word)) {
        Some(word) => format!("{line}; see hotr {word} --help"),
        None => format!("{line}; see hotr --help"),
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn clap_errors_become_one_line() {
        for (rendered, command, want) in [
            (
                "error: unexpected argument '--jsn' found\n\n  tip: a similar argument exists: '--json'\n\n\
                 Usage: hotr trace --json\n\nFor more information, try '--help'.\n",
                Some("trace"),
                "unexpected argument '--jsn' found; a similar argument exists: '--json'; see hotr trace --help",
            ),
            (
                "error: invalid value 'x' for '--tier <TIER>'\n  [possible values: auto, fentry]\n\n\
                 For more information, try '--help'.\n",
                Some("trace"),
                "invalid value 'x' for '--tier <TIER>' [possible values: auto, fentry]; \
                 see hotr trace --help",
            ),
            (
                "error: the following required arguments were not provided:\n  <SHELL>\n\nUsage: hotr\n",
                Some("/no-command"),
                "the following required arguments were not provided: <SHELL>; see hotr --help",
            ),
        ] {
            assert_eq!(one_line(rendered, command), want);
        }
    }
}
