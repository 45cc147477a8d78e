//! The bars: pure judgements from figures to rows. A figure that is missing meets no bar.

use super::{figures::Figures, report::Row};

/// The kernel reports a storm once in this time, in seconds (`WINDOW_NS` of hotr's engine).
const WINDOW: f64 = 0.1;

/// No program may give the verifier more work than this, in instructions.
const VERIFIER: f64 = 100_000.0;

/// Added to a pwrite: at each place, as a multiple of what an empty program adds.
pub(crate) fn pwrite(kernel: &str, figures: &Figures) -> Vec<Row> {
    let places = [
        ("other", "another superblock", 1.15),
        ("outside", "the watched superblock, outside the tree, cache warm", 2.0),
        ("watched", "a watched file during a storm, coalesced", 3.0),
    ];
    let mut rows: Vec<Row> = places
        .iter()
        .map(|(place, words, bar)| {
            let hotr = figures.added("hotr", place, "writer");
            let empty = figures.added("empty", place, "writer");
            let ratio = hotr / empty;
            let mut measured = format!("{hotr:.0} instructions, {ratio:.2} × the empty program's {empty:.0}");
            over(&mut measured, hotr, empty * bar, "instructions");
            let figure = format!("added to a 1-byte pwrite on {words} (fentry, {kernel})");
            Row::new("pwrite", &figure, measured, &format!("≤ {bar} ×"), ratio <= *bar)
        })
        .collect();
    rows.push(lowest(kernel, figures));
    rows
}

/// fatrace and inotifywait put no program on the write path: what nobody watches costs them nothing, and what is
/// watched costs them events. So the tracers are compared where they have something to report.
fn lowest(kernel: &str, figures: &Figures) -> Row {
    let mut met = true;
    let mut parts = Vec::new();
    for (place, words, others) in [
        ("other", "another superblock", &["bpftrace"][..]),
        ("outside", "outside the tree", &["bpftrace", "fatrace"]),
        ("watched", "watched", &["bpftrace", "fatrace", "inotifywait"]),
    ] {
        let hotr = figures.added("hotr", place, "machine");
        let mut part = format!("{words}: hotr {hotr:.0}");
        for other in others {
            let added = figures.added(other, place, "machine");
            met &= hotr < added;
            part.push_str(&format!(", {other} {added:.0}"));
        }
        parts.push(part);
    }
    let figure = format!("the same beside other tracers, their userspace included ({kernel})");
    Row::new("pwrite", &figure, parts.join("; "), "hotr is the lowest of those that report the place", met)
}

/// A storm on one file: few records, exact totals; raw: every write a record, or counted as lost, and most of them
/// records where writer and reader have a core each.
pub(crate) fn storm(figures: &Figures) -> Vec<Row> {
    let get = |key: &str| figures.get(&format!("storm/{key}"));
    let (count, lines, seconds) = (get("count"), get("json/lines"), get("json/seconds"));
    let most = (seconds / WINDOW).floor() + 2.0;
    let mut measured = format!("{lines} records in {seconds:.2} s (at most {most})");
    over(&mut measured, lines, most, "records");
    let (writes, bytes) = (get("json/writes"), get("json/bytes"));
    let exact = same(writes, count) && same(bytes, count) && same(get("json/lost"), 0.0);
    let (raw, lost) = (get("raw/lines"), get("raw/lost"));
    let raw_seconds = get("raw/seconds");
    let what = format!("{count} one-byte writes to one watched file");
    vec![
        Row::new("storm", &format!("{what}: records"), measured, "≤ duration / window + 2", lines <= most),
        Row::new(
            "storm",
            &format!("{what}: totals"),
            format!("{writes} writes, {bytes} bytes told"),
            "exact",
            exact,
        ),
        Row::new(
            "storm",
            &format!("{what}, --raw"),
            format!(
                "{raw} records ({:.0} %) and {lost} counted as lost, in {raw_seconds:.2} s",
                100.0 * raw / count
            ),
            // The end of the storm is marked by a file, whose records may be among the lost.
            "together at least every write, and more records than losses",
            raw + lost >= count && raw > lost,
        ),
    ]
}

/// Beside inotifywait, in turns: the median of what each round says.
pub(crate) fn latency(figures: &Figures) -> Row {
    let get = |key: &str| figures.get(&format!("latency/{key}"));
    let ratio = get("hotr/ratio99");
    let measured = format!(
        "p99 {ratio:.2} × inotifywait's, p50 {:.2} ×: medians of {} rounds, in {} of which p99 was not above \
         inotifywait's (p50 {:.0} and {:.0} µs, p99 {:.0} and {:.0} µs)",
        get("hotr/ratio50"),
        get("rounds"),
        get("hotr/below"),
        get("hotr/p50"),
        get("inotifywait/p50"),
        get("hotr/p99"),
        get("inotifywait/p99"),
    );
    Row::new("latency", "write returned → line read", measured, "p99 ≤ inotifywait's", ratio <= 1.0)
}

/// Beside watchexec and entr, in turns. entr waits for 50 ms of quiet and has no option for that: so do all.
pub(crate) fn reload(figures: &Figures) -> Vec<Row> {
    let get = |who: &str, key: &str| figures.get(&format!("reload/{who}/{key}"));
    let row = |other: &str| {
        let (hotr, theirs) = (get("hotr", "p99"), get(other, "p99"));
        let mut measured = format!(
            "p50 {:.2} ms, p99 {:.2} ms; {other} p50 {:.2} ms, p99 {:.2} ms",
            get("hotr", "p50") / 1e3,
            hotr / 1e3,
            get(other, "p50") / 1e3,
            theirs / 1e3
        );
        over(&mut measured, hotr / 1e3, theirs / 1e3, "ms");
        let figure = format!("change → command started, 50 ms of quiet, beside {other}");
        let met = hotr < theirs && same(get("hotr", "missed"), 0.0);
        Row::new("reload", &figure, measured, &format!("p99 < {other}'s, none missed"), met)
    };
    vec![row("watchexec"), row("entr")]
}

/// A whole `hotr watch` that has nothing to do.
pub(crate) fn watch_idle(figures: &Figures) -> Vec<Row> {
    let get = |key: &str| figures.get(&format!("watch-idle/{key}"));
    let (share, peak) = (get("cpu-percent"), get("peak-mb"));
    let what = format!("hotr watch, healthy channels, {} files in 1,000 directories", get("files"));
    let mut used = format!(
        "{share:.2} % of one core ({:.2} s in {:.0} s, audits included; said {} lines)",
        get("cpu-seconds"),
        get("seconds"),
        get("said")
    );
    over(&mut used, share, 1.0, "%");
    let mut memory = format!("{:.1} MB, {peak:.1} MB at its peak", get("resident-mb"));
    over(&mut memory, peak, 64.0, "MB");
    vec![
        Row::new("watch-idle", &format!("{what}: processor time"), used, "≤ 1 %", share <= 1.0),
        Row::new(
            "watch-idle",
            &format!("{what}: resident memory of the whole program"),
            memory,
            "≤ 64 MB",
            peak <= 64.0,
        ),
    ]
}

/// Absolute bars: a user waits for it.
pub(crate) fn ready(figures: &Figures) -> Vec<Row> {
    let get = |key: &str| figures.get(&format!("ready/{key}"));
    let what = format!("ready on {} directories, --channels ebpf", get("directories"));
    let row = |unit: &str, key: &str, bar: f64, title: &str| {
        let (hotr, other) = (get(&format!("hotr/{key}")), get(&format!("inotifywait/{key}")));
        let mut measured = format!("{hotr:.1} {unit}; inotifywait -r {other:.1} {unit}");
        over(&mut measured, hotr, bar, unit);
        Row::new("ready", &format!("{what}: {title}"), measured, &format!("≤ {bar} {unit}"), hotr <= bar)
    };
    vec![row("ms", "ms", 100.0, "time"), row("MB", "peak-mb", 25.0, "resident, at its peak")]
}

/// Every file of every round.
pub(crate) fn race(figures: &Figures) -> Row {
    let get = |key: &str| figures.get(&format!("race/{key}"));
    let count = get("count");
    let least = |who: &str| get(&format!("{who}/least"));
    let measured = format!(
        "at least {} of {count} a round; with --channels inotify {}; inotifywait -r {}",
        least("hotr"),
        least("hotr-inotify"),
        least("inotifywait")
    );
    let met = same(least("hotr"), count) && same(least("hotr-inotify"), count);
    let figure =
        format!("{count} × (mkdir -p d/a/b, write d/a/b/f), {} rounds: files reported", get("rounds"));
    Row::new("race", &figure, measured, "all, each round, by default and with --channels inotify", met)
}

/// Reported, or found again after a loss that was reported.
pub(crate) fn creates(figures: &Figures) -> Row {
    let get = |key: &str| figures.get(&format!("creates/{key}"));
    let (disk, reported) = (get("on-disk"), get("reported"));
    let measured = format!(
        "{reported} of {disk} reported; loss told {} times ({} records); made in {:.1} s, all told after {:.1} s, \
         peak {:.0} MB",
        get("loss-lines"),
        get("lost"),
        get("seconds"),
        get("told-seconds"),
        get("peak-mb")
    );
    let counted = same(get("ring-full"), 0.0) || get("loss-lines") > 0.0;
    let met = same(disk, get("count")) && same(reported, disk) && counted;
    let figure = format!("{} creates in 128 directories by two processes", get("count"));
    Row::new("creates", &figure, measured, "every file reported, or the loss told and every file found", met)
}

/// Memory above what hotr takes before a storm, and the time that a signal needs in its midst.
pub(crate) fn wide(figures: &Figures) -> Vec<Row> {
    let what = format!("{} new directories with nine files each", figures.get("wide/directories"));
    let rows = ["trace", "watch"].into_iter().flat_map(|name| {
        let (memory, end) = (format!("wide/{name}/above-quiet-mb"), format!("wide/{name}/end-seconds"));
        let (memory, end) = (figures.get(&memory), figures.get(&end));
        let row = |title: &str, mut measured: String, value: f64, bar: f64, unit: &str| {
            over(&mut measured, value, bar, unit);
            Row::new(
                "wide",
                &format!("{what}: {title} of hotr {name}"),
                measured,
                &format!("≤ {bar} {unit}"),
                value <= bar,
            )
        };
        [
            row("memory above quiet", format!("{memory:.0} MB"), memory, 100.0, "MB"),
            row("end by SIGINT meanwhile", format!("{end:.2} s"), end, 1.0, "s"),
        ]
    });
    rows.collect()
}

/// Ratios of single turns, on each filesystem.
pub(crate) fn poll(figures: &Figures, files: &str) -> Vec<Row> {
    let rows = ["tmpfs", "ext4", "xfs"].iter().flat_map(|filesystem| {
        let get = |key: &str| figures.get(&format!("{filesystem}/poll/{files}/{key}"));
        let what = format!("audit of {files} files in 1,000 directories on {filesystem}, warm caches");
        let ratio = |title: &str, value: f64, bar: f64, beside: String| {
            let measured = format!("{value:.2} × ({beside})");
            Row::new("poll", &format!("{what}: {title}"), measured, &format!("≤ {bar} ×"), value <= bar)
        };
        let beside = |unit: &str, other: &str| {
            format!(
                "{:.0} ms; {other} {:.0} ms",
                get(&format!("hotr/{unit}")),
                get(&format!("{other}/{unit}"))
            )
        };
        let memory = get("hotr/resident-mb");
        vec![
            ratio("time beside find -newermt", get("wall-by-find"), 0.6, beside("wall-ms", "find")),
            ratio("time beside PollWatcher", get("wall-by-notify"), 0.2, beside("wall-ms", "notify")),
            ratio("processor time beside find", get("cpu-by-find"), 1.0, beside("cpu-ms", "find")),
            Row::new(
                "poll",
                &format!("{what}: resident memory of a process with the poller"),
                format!("{memory:.1} MB; PollWatcher {:.1} MB", get("notify/resident-mb")),
                "≤ 64 MB",
                memory <= 64.0,
            ),
        ]
    });
    rows.collect()
}

/// Added by a live diagnosis: to a write whose event another process receives, to writes that nobody watches, and to the
/// read(2) that takes the event.
pub(crate) fn delivered(kernel: &str, figures: &Figures) -> Vec<Row> {
    let of = |subject: &str, key: &str| figures.get(&format!("delivered/{subject}/{key}"));
    let row = |what: &str, added: f64, empty: f64, bar: f64| {
        let ratio = added / empty;
        let mut measured = format!("{added:.0} instructions, {ratio:.2} × the empty program's {empty:.0}");
        over(&mut measured, added, empty * bar, "instructions");
        let figure = format!("{what} (fentry, {kernel})");
        Row::new("delivered", &figure, measured, &format!("≤ {bar} ×"), ratio <= bar)
    };
    let unwatched = ["other", "outside"]
        .map(|place| of("diagnose", &format!("{place}/writer")) - of("trace", &format!("{place}/writer")));
    let writer = "watched/writer";
    vec![
        row(
            "a live diagnosis, added to the writer for an event that the process receives, beside --raw",
            of("diagnose", writer) - of("trace", writer),
            of("empty", writer) - of("none", writer),
            3.0,
        ),
        row(
            "the same, added to the process's read(2) of an event",
            of("diagnose", "read") - of("none", "read"),
            of("empty", "read") - of("none", "read"),
            2.0,
        ),
        Row::new(
            "delivered",
            &format!("the same, added to a write that nobody watches, beside --raw (fentry, {kernel})"),
            format!(
                "another superblock {:.0}, outside the tree {:.0} instructions",
                unwatched[0], unwatched[1]
            ),
            "nothing",
            unwatched.iter().all(|added| *added < 0.5),
        ),
    ]
}

/// How long a diagnosis takes.
pub(crate) fn diagnose(figures: &Figures) -> Vec<Row> {
    let get = |key: &str| figures.get(&format!("diagnose/{key}"));
    let row = |what: String, key: &str, bar: f64| {
        let (time, cpu) = (get(&format!("{key}/ms")), get(&format!("{key}/cpu-ms")));
        let measured = format!("{time:.0} ms ({cpu:.0} ms processor time)");
        Row::new("diagnose", &what, measured, &format!("< {bar} ms"), time < bar)
    };
    let (watches, instances) = (get("watches"), get("instances"));
    vec![
        row(
            format!("hotr diagnose of a process with {watches} watches in {instances} instances"),
            "process",
            1000.0,
        ),
        row(
            format!("hotr diagnose of the machine with {} watching processes", get("processes")),
            "machine",
            2000.0,
        ),
    ]
}

/// Over all kernels and tiers.
pub(crate) fn verifier(figures: &Figures) -> Row {
    let most = figures.below("verifier/").max_by(|(_, left), (_, right)| left.total_cmp(right));
    let (name, value) = most.unwrap_or(("nothing was loaded", f64::NAN));
    let mut measured = format!("at most {value} ({name})");
    over(&mut measured, value, VERIFIER, "instructions");
    let figure = "verifier: instructions processed for a program, on every kernel";
    Row::new("verifier", figure, measured, &format!("≤ {VERIFIER}"), value <= VERIFIER)
}

/// Counts are whole numbers.
fn same(left: f64, right: f64) -> bool {
    (left - right).abs() < 0.5
}

/// Says by how much a bar is missed.
fn over(measured: &mut String, value: f64, bar: f64, unit: &str) {
    if value > bar {
        measured.push_str(&format!("; {:.1} {unit} over", value - bar));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_judged_against_the_empty_program() {
        let mut values = Vec::new();
        for place in ["other", "outside", "watched"] {
            for (subject, added) in [
                ("none", 0.0),
                ("empty", 200.0),
                ("hotr", 400.0),
                ("bpftrace", 500.0),
                ("fatrace", 500.0),
                ("inotifywait", 500.0),
            ] {
                for clock in ["writer", "machine"] {
                    values.push((format!("cost/{subject}/{place}/{clock}"), 1600.0 + added));
                }
            }
        }
        let values: Vec<(&str, f64)> = values.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let rows = pwrite("6.12", &Figures::of(&values));
        assert_eq!(rows.iter().map(|row| row.met).collect::<Vec<_>>(), [false, true, true, true]);
        assert_eq!(
            rows[0].measured,
            "400 instructions, 2.00 × the empty program's 200; 170.0 instructions over"
        );
    }

    #[test]
    fn what_was_not_measured_meets_no_bar() {
        let none = Figures::default();
        assert!(pwrite("6.12", &none).iter().all(|row| !row.met));
        assert!(storm(&none).iter().all(|row| !row.met));
        assert!(ready(&none).iter().all(|row| !row.met));
        assert!(poll(&none, "1000").iter().all(|row| !row.met));
        assert!(delivered("6.12", &none).iter().chain(&diagnose(&none)).all(|row| !row.met));
        assert!(reload(&none).iter().chain(&watch_idle(&none)).chain(&wide(&none)).all(|row| !row.met));
        for row in [latency(&none), race(&none), creates(&none), verifier(&none)] {
            assert!(!row.met, "{row:?}");
        }
    }

    #[test]
    fn a_reload_is_beside_each_tool_and_none_is_missed() {
        let figures = |missed: f64| {
            Figures::of(&[
                ("reload/hotr/p99", 51_000.0),
                ("reload/hotr/missed", missed),
                ("reload/watchexec/p99", 53_000.0),
                ("reload/entr/p99", 50_900.0),
            ])
        };
        let met = |missed| reload(&figures(missed)).iter().map(|row| row.met).collect::<Vec<_>>();
        assert_eq!(met(0.0), [true, false]);
        assert_eq!(met(1.0), [false, false]);
    }

    #[test]
    fn a_lost_file_must_have_been_told() {
        let figures = |ring_full: f64, told: f64, reported: f64| {
            Figures::of(&[
                ("creates/count", 10.0),
                ("creates/on-disk", 10.0),
                ("creates/reported", reported),
                ("creates/ring-full", ring_full),
                ("creates/loss-lines", told),
            ])
        };
        assert!(creates(&figures(0.0, 0.0, 10.0)).met);
        assert!(creates(&figures(5.0, 1.0, 10.0)).met);
        assert!(!creates(&figures(5.0, 0.0, 10.0)).met);
        assert!(!creates(&figures(5.0, 1.0, 9.0)).met);
    }

    #[test]
    fn a_storm_is_few_records_and_exact_totals() {
        let figures = |lines: f64, writes: f64, raw: f64, lost: f64| {
            Figures::of(&[
                ("storm/count", 100.0),
                ("storm/json/seconds", 1.0),
                ("storm/json/lines", lines),
                ("storm/json/writes", writes),
                ("storm/json/bytes", writes),
                ("storm/json/lost", 0.0),
                ("storm/raw/lines", raw),
                ("storm/raw/lost", lost),
            ])
        };
        let met = |figures: &Figures| storm(figures).iter().map(|row| row.met).collect::<Vec<_>>();
        assert_eq!(met(&figures(12.0, 100.0, 90.0, 10.0)), [true, true, true]);
        assert_eq!(met(&figures(13.0, 99.0, 90.0, 9.0)), [false, false, false]);
        assert_eq!(met(&figures(12.0, 100.0, 49.0, 51.0)), [true, true, false]);
    }
}
