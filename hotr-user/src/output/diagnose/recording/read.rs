//! Reads a recording, line by line, in bounded memory.

use std::io::{BufRead, Read};

use super::lines::{self, Line};
use super::{FORMAT, MOST_LINE, header, line};
use crate::diagnose::live::{LiveReport, Machine};

/// Why a recording cannot be read any further.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Damaged {
    /// Number of the line, from 1.
    pub line: u64,
    /// What is wrong with it, and what to do.
    pub why: String,
}

/// See the module.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// The facts of the machine.
    pub machine: Machine,
    line: u64,
    seq: u64,
    is_over: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is no recording, or one of another format.
    pub fn new(mut input: R) -> Result<Self, Damaged> {
        let text = match next_line(&mut input, 1) {
            Err(Damaged { why, .. }) if !why.starts_with("read") => Err(foreign()),
            other => other,
        }?;
        let text =
            text.ok_or_else(|| damaged(1, "the file is empty; name a recording of hotr diagnose --record"))?;
        match lines::format(&text) {
            None => return Err(foreign()),
            Some(FORMAT) => {}
            Some(other) => {
                let why = format!(
                    "a recording of format {other}, and this hotr reads format {FORMAT}; use the hotr that made it, or a newer one"
                );
                return Err(damaged(1, &why));
            }
        }
        let machine = lines::machine(&text).ok_or_else(|| changed(1))?;
        let mut again = Vec::new();
        header(&mut again, &machine);
        if again != text {
            return Err(changed(1));
        }
        Ok(Self { input, machine, line: 1, seq: 0, is_over: false })
    }

    /// Hands the next report to `tell`; false at the end.
    ///
    /// # Errors
    /// When the line is damaged, or the file ends without a summary; and what `tell` returns.
    pub fn next<E: From<Damaged>>(
        &mut self,
        tell: impl FnOnce(LiveReport<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        self.line += 1;
        let number = self.line;
        let Some(text) = next_line(&mut self.input, number)? else {
            if self.is_over {
                return Ok(false);
            }
            let why = "the recording ends without a summary: the run was killed, or the file was cut";
            return Err(damaged(number, why).into());
        };
        if self.is_over {
            return Err(damaged(number, "the recording goes on after its summary: two files in one?").into());
        }
        let read = lines::line(&text).ok_or_else(|| changed(number))?;
        let told = read.live_report();
        let mut again = Vec::with_capacity(text.len());
        line(&mut again, &mut self.seq, &told);
        if again != text {
            return Err(changed(number).into());
        }
        self.is_over = matches!(read, Line::Summary(_));
        tell(told)?;
        Ok(true)
    }
}

fn damaged(line: u64, why: &str) -> Damaged {
    Damaged { line, why: why.to_owned() }
}

fn foreign() -> Damaged {
    damaged(1, "not a recording; name a file of hotr diagnose --record")
}

fn changed(line: u64) -> Damaged {
    damaged(line, "not as hotr wrote it: the file is damaged or was edited")
}

/// The next line with its end; nothing at the end of the file.
fn next_line(input: &mut impl BufRead, number: u64) -> Result<Option<Vec<u8>>, Damaged> {
    let mut text = Vec::new();
    let result = input.take(MOST_LINE as u64 + 1).read_until(b'\n', &mut text);
    result.map_err(|error| damaged(number, &format!("read: {error}")))?;
    match text.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(text)),
        Some(_) if text.len() > MOST_LINE => {
            Err(damaged(number, "a line of more than 8 MiB; the file is damaged"))
        }
        Some(_) => Err(damaged(number, "the line has no end: the file was cut")),
    }
}
