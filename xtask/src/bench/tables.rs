//! Tables without bars: what the rows were judged from, and what stands beside it.

use std::collections::BTreeSet;

use super::{figures::Figures, guests::TOOLS, report::Table};

const PLACES: [(&str, &str); 3] =
    [("other", "another superblock"), ("outside", "outside the tree"), ("watched", "watched file, a storm")];

fn table(name: &str, title: &str, about: &str, header: &[&str], rows: Vec<Vec<String>>) -> Table {
    Table {
        title: title.to_owned(),
        about: about.to_owned(),
        header: header.iter().map(|cell| (*cell).to_owned()).collect(),
        rows,
        command: format!("cargo xtask bench --only {name}"),
    }
}

/// Instructions of a write, for every subject and place.
pub(crate) fn pwrite(version: &str, figures: &Figures) -> Table {
    let plain = |place: &str| format!("{:.0}", figures.get(&format!("cost/none/{place}/writer")));
    let mut rows = vec![
        [vec!["(the write itself)".to_owned()], PLACES.iter().map(|(place, _)| plain(place)).collect()]
            .concat(),
    ];
    let hotr = ["hotr", "hotr-kprobe", "hotr-tracepoint", "hotr-auto"];
    for subject in ["empty"].iter().chain(&hotr).chain(&TOOLS) {
        let cell = |(place, _): &(&str, &str)| {
            let (writer, machine) =
                (figures.added(subject, place, "writer"), figures.added(subject, place, "machine"));
            let ratio = writer / figures.added("empty", place, "writer");
            format!("+{writer:.0} ({ratio:.2} ×), machine +{machine:.0}")
        };
        rows.push(match figures.text(&format!("cost/{subject}")) {
            Some(why) => {
                vec![(*subject).to_owned(), format!("not measured: {why}"), String::new(), String::new()]
            }
            None => [vec![(*subject).to_owned()], PLACES.iter().map(cell).collect()].concat(),
        });
    }
    let header = ["subject", PLACES[0].1, PLACES[1].1, PLACES[2].1];
    table(
        "pwrite",
        &format!("Instructions added to a 1-byte pwrite, kernel {version}"),
        "Counted in a virtual machine whose clock advances one nanosecond an instruction. Each subject runs alone. \
         The first number is what the writing thread pays, in brackets as a multiple of an empty fexit program on \
         vfs_write; `machine` includes the subject's userspace. bpftrace: `kretfunc:vfs_write` filtered by superblock, \
         printing; fatrace: `-c -f W`; inotifywait: `-m -r`. `hotr` is the fentry tier with --channels ebpf, `hotr-auto` \
         the default channels. On this kernel one watch on a filesystem makes every write to it pass the kernel's \
         notification code: that is what inotifywait adds outside the tree, and what `hotr-auto` has more there than \
         `hotr`.",
        &header,
        rows,
    )
}

/// Instructions of a write and of a read of its event, for every subject.
pub(crate) fn delivered(version: &str, figures: &Figures) -> Table {
    let get = |subject: &str, key: &str| figures.get(&format!("delivered/{subject}/{key}"));
    let keys = ["other/writer", "outside/writer", "watched/writer", "read"];
    let plain = keys.map(|key| format!("{:.0}", get("none", key))).to_vec();
    let mut rows = vec![[vec!["(the call itself)".to_owned()], plain].concat()];
    for subject in ["empty", "trace", "diagnose"] {
        let added = keys.map(|key| format!("+{:.0}", get(subject, key) - get("none", key))).to_vec();
        rows.push([vec![subject.to_owned()], added].concat());
    }
    table(
        "delivered",
        &format!("Instructions added to a delivered event, kernel {version}"),
        "Counted as for pwrite. One-byte pwrites to two files in turn; a process watches their directory with inotify, and reads \
         one event a call. `empty`: an empty fexit program on inotify_handle_inode_event, and one on \
         fsnotify_remove_first_event. `trace`: hotr trace --raw, --channels ebpf. `diagnose`: hotr diagnose --live of that \
         process, which traces in the same way.",
        &["subject", PLACES[0].1, PLACES[1].1, "watched file, its event queued", "read(2) of an event"],
        rows,
    )
}

/// Percentiles of all three subjects.
pub(crate) fn latency(figures: &Figures) -> Table {
    let get = |key: &str| figures.get(&format!("latency/{key}"));
    let rows = ["hotr", "hotr-ebpf", "inotifywait"]
        .iter()
        .map(|who| {
            let cell = |percent: u32| {
                let (time, ratio) =
                    (get(&format!("{who}/p{percent}")), get(&format!("{who}/ratio{percent}")));
                format!("{time:.0} ({ratio:.2} ×)")
            };
            let below = format!("{} of {}", get(&format!("{who}/below")), get("rounds"));
            vec![(*who).to_owned(), cell(50), cell(90), cell(99), below]
        })
        .collect();
    let about = format!(
        "In turns, one write to a file of its own each, all three running all the time; medians of {} rounds of {} \
         writes. In brackets what it is beside inotifywait in the same round, the median of that: noise comes and goes, and \
         is the same for all of a round. `hotr-ebpf` is --channels ebpf.",
        get("rounds"),
        get("samples"),
    );
    let head = ["subject", "p50", "p90", "p99", "p99 not above inotifywait's"];
    table("latency", "Write returned → line read, µs", &about, &head, rows)
}

/// Percentiles of all subjects, and what the tools did beside.
pub(crate) fn reload(figures: &Figures) -> Table {
    let rows = [("hotr", "50 ms"), ("watchexec", "50 ms"), ("entr", "50 ms, fixed"), ("hotr-0", "none")]
        .iter()
        .map(|(who, quiet)| {
            let get = |key: &str| figures.get(&format!("reload/{who}/{key}"));
            let time = |key: &str| format!("{:.2}", get(key) / 1e3);
            let count = |key: &str| format!("{}", get(key));
            let (times, counts) = (["p50", "p90", "p99"].map(time), ["missed", "extra"].map(count));
            [vec![(*who).to_owned(), (*quiet).to_owned()], times.to_vec(), counts.to_vec()].concat()
        })
        .collect();
    let about = format!(
        "In turns, {} changes of a file of its own each, all running all the time. The time ends at the first \
         instruction of the command's `main`. Quiet is what a tool waits for after a change: `--debounce` of hotr and \
         watchexec; entr has no option for it and polls for 50 ms. `hotr-0` is `--debounce 0ms`: it is not compared, \
         it shows what remains. watchexec runs with --shell=none --ignore-nothing. Missed: no command within 3 s; \
         extra: further commands for the same change.",
        figures.get("reload/count")
    );
    let header = ["subject", "quiet", "p50", "p90", "p99", "missed", "extra"];
    table("reload", "Change → command started, ms", &about, &header, rows)
}

/// Start-up, medians.
pub(crate) fn ready(figures: &Figures) -> Table {
    let rows = ["hotr", "hotr-auto", "inotifywait"]
        .iter()
        .map(|who| {
            let cell = |key: &str| format!("{:.1}", figures.get(&format!("ready/{who}/{key}")));
            vec![(*who).to_owned(), cell("ms"), cell("resident-mb"), cell("peak-mb")]
        })
        .collect();
    let title = format!("Start on {} directories", figures.get("ready/directories"));
    let about = "Medians, in turns. `hotr` is --channels ebpf, `hotr-auto` the default channels.";
    table("ready", &title, about, &["subject", "ms to ready", "resident MB", "peak MB"], rows)
}

/// Files reported a round.
pub(crate) fn race(figures: &Figures) -> Table {
    let rows = ["hotr", "hotr-inotify", "inotifywait"]
        .iter()
        .map(|who| {
            let cell = |key: &str| format!("{}", figures.get(&format!("race/{who}/{key}")));
            vec![(*who).to_owned(), cell("least"), cell("median"), cell("most")]
        })
        .collect();
    let title = format!(
        "Files reported of {} in new directories, {} rounds",
        figures.get("race/count"),
        figures.get("race/rounds")
    );
    table("race", &title, "In turns.", &["subject", "least", "median", "most"], rows)
}

/// Programs × kernels; the largest of the tiers where a program serves several.
pub(crate) fn verifier(labels: &[String], figures: &Figures) -> Table {
    let names: BTreeSet<&str> =
        figures.below("verifier/").filter_map(|(key, _)| Some(key.rsplit_once('/')?.1)).collect();
    let cell = |label: &String, name: &str| {
        let prefix = format!("verifier/{label}/");
        let most = figures
            .below(&prefix)
            .filter(|(key, _)| key.rsplit_once('/').is_some_and(|(_, program)| program == name))
            .map(|(_, value)| value)
            .fold(f64::NAN, f64::max);
        if most.is_nan() { "–".to_owned() } else { most.to_string() }
    };
    let rows = names
        .iter()
        .map(|name| {
            [vec![(*name).to_owned()], labels.iter().map(|label| cell(label, name)).collect()].concat()
        })
        .collect();
    let header: Vec<&str> = std::iter::once("program").chain(labels.iter().map(String::as_str)).collect();
    let about = "As the kernel's verifier counts them when hotr loads its programs; names as the kernel keeps them \
                 (15 bytes). A dash: this kernel has another program for the hook.";
    table("verifier", "Verifier: instructions processed", about, &header, rows)
}

/// Size and memory.
pub(crate) fn idle(figures: &Figures) -> Table {
    let get = |key: &str| figures.get(&format!("idle/{key}"));
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    let rows = vec![
        row("release program", format!("{:.2} MB", get("binary-bytes") / 1e6)),
        row(
            "hotr trace, idle, --channels ebpf",
            format!("{:.1} MB resident, {:.1} MB peak", get("ebpf/resident-mb"), get("ebpf/peak-mb")),
        ),
        row(
            "hotr trace, idle, default channels",
            format!("{:.1} MB resident, {:.1} MB peak", get("auto/resident-mb"), get("auto/peak-mb")),
        ),
    ];
    table("idle", "Size and idle memory", "1 MB is 10^6 bytes.", &["what", "is"], rows)
}
