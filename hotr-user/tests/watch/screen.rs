//! A program on a terminal: keys in, what the screen shows out.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::run::until;

pub(crate) struct Screen {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
    seen: usize,
}

impl Screen {
    /// Runs a command line on a terminal of its own, which `script` gives it.
    pub(crate) fn of(line: &str, dir: &Path) -> Self {
        let mut command = Command::new("script");
        command.args(["-qec", line, "/dev/null"]).env("TERM", "xterm").env("LC_ALL", "C").current_dir(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn();
        let mut child = child.unwrap_or_else(|error| panic!("script: {error}; apt-get install bsdutils"));
        let shown = Arc::new(Mutex::new(String::new()));
        let (into, mut output) = (Arc::clone(&shown), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self { keys: child.stdin.take().unwrap(), child, shown, seen: 0 }
    }

    /// Waits until the program has drawn a text after what was waited for before.
    pub(crate) fn until_shows(&mut self, text: &str) {
        let (shown, seen) = (&self.shown, &mut self.seen);
        until(&format!("the screen shows {text}"), || {
            let shown = shown.lock().unwrap();
            let found = shown[*seen..].find(text);
            *seen += found.map_or(0, |at| at + text.len());
            found.is_some()
        });
    }

    pub(crate) fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// The program was asked to end.
    pub(crate) fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
