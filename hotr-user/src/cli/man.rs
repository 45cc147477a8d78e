//! The manual page: one for the whole command, made from the same definitions as `--help`.

use clap::Command;
use clap_mangen::Man;

const EXIT_STATUS: &str = "\
.SH EXIT STATUS
.TP
0
Done, also when ended by SIGINT, SIGTERM or SIGHUP or because the reader of stdout has closed it.
.TP
1
An error; one line on stderr says what was tried, on what, why it failed, and what to do.
.TP
2
Usage error.
.TP
3
The command worked and found what it looks for (doctor: a path that cannot be fully covered;
diagnose: a watch that is deaf, or events that were lost; verify --expect: a verdict that differs).
.SH ENVIRONMENT
.TP
NO_COLOR
When set and not empty, no colour unless --color=always.
.TP
TZ
The time zone of the times in readable lines; JSON Lines are always in UTC.
";

/// How roff shall print an apostrophe; clap_mangen repeats it before each section.
const PREAMBLE: [&str; 2] = [".ie \\n(.g .ds Aq \\(aq", ".el .ds Aq '"];

/// The page as roff.
pub(super) fn page(mut command: Command) -> anyhow::Result<Vec<u8>> {
    command.build();
    let mut page = section(&command, |man, out| man.render_title(out))?;
    page.push_str(&PREAMBLE.map(|line| format!("{line}\n")).concat());
    page.push_str(&section(&command, |man, out| {
        man.render_name_section(out)?;
        man.render_synopsis_section(out)?;
        man.render_description_section(out)?;
        man.render_options_section(out)
    })?);
    for sub in command.get_subcommands() {
        page.push_str(&format!(".SH HOTR {}\n", sub.get_name().to_uppercase()));
        let text = section(sub, |man, out| {
            man.render_description_section(out)?;
            man.render_synopsis_section(out)?;
            man.render_options_section(out)
        })?;
        // The sections of a subcommand are parts of its own section; the first needs no title.
        page.push_str(&text.replacen(".SH DESCRIPTION\n", "", 1).replace("\n.SH ", "\n.SS "));
        if sub.get_after_help().is_some() {
            // Its lines are columns, which roff must not fill.
            let text = section(sub, |man, out| man.render_extra_section(out))?;
            page.push_str(&format!("{}.fi\n", text.replacen(".SH EXTRA\n", ".SS EXAMPLES\n.nf\n", 1)));
        }
    }
    page.push_str(EXIT_STATUS);
    Ok(page.into_bytes())
}

/// Renders parts of a command's page, without the repeated preamble.
fn section(
    command: &Command,
    render: impl FnOnce(&Man, &mut Vec<u8>) -> std::io::Result<()>,
) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    render(&Man::new(command.clone()), &mut bytes)?;
    let text = String::from_utf8(bytes)?;
    Ok(text.lines().filter(|line| !PREAMBLE.contains(line)).flat_map(|line| [line, "\n"]).collect())
}
