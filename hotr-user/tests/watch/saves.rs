//! One save is one reload, whoever saves and however.

use std::fs;

use super::run::{Scratch, Watch, tool};

/// Saves `conf` by a program; exactly one reload follows, for that file alone.
fn one_reload(package: &str, program: &str, args: &[&str]) {
    let scratch = Scratch::new(program);
    scratch.file("conf", "one\ntwo\n");
    scratch.file("other", "x");
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    tool(package, program, args, &scratch.w());
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
    for mode in ["set backupcopy=yes", "set backupcopy=no", "set backupcopy=auto", "set backup backupdir=."] {
        let change = ["-Es", "-u", "NONE", "-c", mode, "-c", "normal othree", "-c", "wq", "conf"];
        one_reload("vim", "vim", &change);
    }
}

#[test]
fn emacs() {
    let change = "(progn (find-file \"conf\") (goto-char (point-max)) (insert \"three\") (save-buffer))";
    one_reload("emacs-nox", "emacs", &["--batch", "--eval", change]);
}

#[test]
fn nano() {
    // On a terminal of its own, which `script` gives it: type, write, leave.
    let keys = "(sleep 0.3; printf 'three\\r'; sleep 0.3; printf '\\017\\r'; sleep 0.3; printf '\\030') \
                | TERM=xterm script -qec 'nano --ignorercfiles conf' /dev/null";
    tool("nano", "nano", &["--version"], &std::env::temp_dir());
    one_reload("bsdutils", "sh", &["-c", keys]);
}

#[test]
fn sed_in_place() {
    one_reload("sed", "sed", &["-i", "s/two/three/", "conf"]);
}

#[test]
fn install_and_cp() {
    one_reload("coreutils", "sh", &["-c", "printf three > ../new && install -m 600 ../new conf"]);
    one_reload("coreutils", "sh", &["-c", "printf three > ../new && cp ../new conf"]);
}

#[test]
fn rsync() {
    one_reload(
        "rsync",
        "sh",
        &["-c", "mkdir ../from && printf three > ../from/conf && rsync -a ../from/ ./"],
    );
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
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    git(&["checkout", "-q", "one"]);
    let line = watch.reload("started");
    assert_eq!(watch.names(&line).len(), 1000);
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
}
