//! One save is one reload, whoever saves and however.

use std::fs;

use super::run::{Scratch, Watch, tool, until};
use super::screen::Screen;

/// Saves `conf` by a program; exactly one reload follows, for that file alone.
fn one_reload(package: &str, program: &str, args: &[&str]) {
    one_save(program, |scratch| tool(package, program, args, &scratch.w()));
}

fn one_save(program: &str, save: impl FnOnce(&Scratch)) {
    let scratch = Scratch::new(program);
    scratch.file("conf", "one\ntwo\n");
    scratch.file("other", "x");
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    save(&scratch);
    assert_ne!(fs::read_to_string(scratch.w().join("conf")).unwrap(), "one\ntwo\n", "{program} saved");
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["conf"], "{line}");
    assert_eq!(line["changes"][0]["kind"], "written", "{line}");
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn vim_in_every_backup_mode() {
    for copy in ["yes", "no", "auto"] {
        for backup in ["writebackup", "nowritebackup", "backup backupdir=."] {
            one_reload("vim", "vim", &vim(&format!("set backupcopy={copy} {backup}")));
        }
    }
}

/// Without `backupskip=`, vim makes no backups in temporary directories, and all modes are one.
fn vim(mode: &str) -> [&str; 12] {
    ["-Es", "-u", "NONE", "-c", "set backupskip=", "-c", mode, "-c", "normal othree", "-c", "wq", "conf"]
}

/// Here the name leads to another file after the save: the link becomes a file, or gets a file of its own.
#[test]
fn vim_that_breaks_links() {
    for (mode, is_link) in [
        ("set backupcopy=auto,breaksymlink", true),
        ("set backupcopy=yes,breaksymlink", true),
        ("set backupcopy=auto,breakhardlink", false),
        ("set backupcopy=yes,breakhardlink", false),
        ("set backupcopy=yes", true),
        ("set backupcopy=yes", false),
    ] {
        let scratch = Scratch::new("vim-links");
        let outside = scratch.0.join("outside");
        fs::write(&outside, "one\ntwo\n").unwrap();
        let conf = scratch.w().join("conf");
        if is_link {
            std::os::unix::fs::symlink("../outside", &conf).unwrap();
        } else {
            fs::hard_link(&outside, &conf).unwrap();
        }
        let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
        tool("vim", "vim", &vim(mode), &scratch.w());
        let breaks = mode.contains("break");
        assert_ne!(fs::read_to_string(&conf).unwrap(), "one\ntwo\n", "{mode}");
        assert_eq!(fs::read_to_string(&outside).unwrap() == "one\ntwo\n", breaks, "{mode}");
        let line = watch.reload("started");
        assert_eq!(watch.names(&line), ["conf"], "{mode}: {line}");
        watch.reload("done");
        watch.nothing_but_a_marker();
        watch.end();
    }
}

#[test]
fn emacs() {
    let change = "(progn (find-file \"conf\") (goto-char (point-max)) (insert \"three\") (save-buffer))";
    one_reload("emacs-nox", "emacs", &["--batch", "--eval", change]);
}

#[test]
fn nano() {
    one_save("nano", |scratch| {
        tool("nano", "nano", &["--version"], &scratch.0);
        let conf = scratch.w().join("conf");
        let mut screen = Screen::of("nano --ignorercfiles conf", &scratch.w());
        screen.until_shows("Exit");
        screen.type_in("three\r");
        screen.until_shows("three");
        screen.type_in("\x0f");
        screen.until_shows("Write");
        screen.type_in("\r");
        until("nano wrote", || fs::read_to_string(&conf).unwrap() == "three\none\ntwo\n");
        screen.until_shows("Wrote");
        screen.type_in("\x18");
        screen.end();
    });
}

#[test]
fn sed_in_place() {
    one_reload("sed", "sed", &["-i", "s/two/three/", "conf"]);
    one_reload("sed", "sed", &["-i~", "s/two/three/", "conf"]);
}

#[test]
fn install_and_cp() {
    one_reload("coreutils", "sh", &["-c", "printf three > ../new && install -m 600 ../new conf"]);
    one_reload("coreutils", "sh", &["-c", "printf three > ../new && cp ../new conf"]);
}

#[test]
fn rsync() {
    for how in ["", "--inplace", "--delay-updates", "--checksum"] {
        let save = format!("mkdir ../from && printf three > ../from/conf && rsync -a {how} ../from/ ./");
        one_reload("rsync", "sh", &["-c", &save]);
    }
}

#[test]
fn a_copied_tree_is_one_reload() {
    let scratch = Scratch::new("cp-r");
    let from = scratch.0.join("from/a/b/c");
    fs::create_dir_all(&from).unwrap();
    for number in 0..50 {
        fs::write(from.join(number.to_string()), "x").unwrap();
    }
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    tool("coreutils", "cp", &["-r", "../from/a", "."], &scratch.w());
    let line = watch.reload("started");
    assert_eq!(watch.names(&line).len(), 50, "{line}");
    watch.reload("done");
    watch.nothing_but_a_marker();
    // Renaming the directory moves what it holds.
    fs::rename(scratch.w().join("a"), scratch.w().join("z")).unwrap();
    let line = watch.reload("started");
    assert_eq!(watch.names(&line).len(), 100, "{line}");
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn a_checkout_of_a_thousand_files_is_one_reload() {
    let scratch = Scratch::new("git");
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
        tool("git", "git", &[&identity[..], args].concat(), &scratch.w());
    };
    git(&["init", "-q", "-b", "one"]);
    for text in ["one", "two"] {
        for number in 0..1000 {
            scratch.file(&format!("d{}/{number}", number % 10), text);
        }
        git(&["add", "."]);
        git(&["commit", "-qm", text]);
        if text == "one" {
            git(&["checkout", "-qb", "two"]);
        }
    }
    // git says when it is done; only a machine that needs a minute for it would get another reload.
    let mut watch = Watch::start(&["-p", "--settle-max", "60s"], &scratch.w(), &["true"]);
    git(&["checkout", "-q", "one"]);
    let line = watch.reload("started");
    assert_eq!(watch.names(&line).len(), 1000);
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
}
