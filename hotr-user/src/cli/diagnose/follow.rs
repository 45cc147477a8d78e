//! A live diagnosis, or a recorded one, with all that it leaves: lines, a recording, a page.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use hotr_user::diagnose::live::{self, LiveReport, Machine};
use hotr_user::error::Error;
use hotr_user::output::diagnose::live::LivePrinter;
use hotr_user::output::diagnose::page::Page;
use hotr_user::output::diagnose::recording::{Damaged, Reader, Recorder};

use crate::cli::files::{self, New, Replacing};
use crate::cli::{Status, runtime, say, signals};

/// What the user wants to have.
pub(super) struct Outputs {
    pub(super) record: Option<PathBuf>,
    pub(super) report: Option<PathBuf>,
    pub(super) json: bool,
    pub(super) color: bool,
}

impl Outputs {
    pub(super) const fn is_of_a_run(&self) -> bool {
        self.record.is_some() || self.report.is_some()
    }
}

/// A recording that is being written.
struct Recording {
    path: PathBuf,
    place: New,
    recorder: Recorder,
}

/// Where everything goes.
struct Sink {
    printer: LivePrinter,
    recording: Option<Recording>,
    page: Option<(Page, Replacing)>,
    /// What went wrong with a file, in words.
    failed: Option<anyhow::Error>,
    was_lost: bool,
}

impl Sink {
    /// Opens the files, so that what is wrong with them is said before the run.
    fn open(outputs: &Outputs) -> anyhow::Result<Self> {
        let recording = outputs.record.as_deref().map(|path| {
            let (place, file) = New::create("record", path)?;
            Ok::<_, anyhow::Error>(Recording { path: path.to_owned(), place, recorder: Recorder::new(file) })
        });
        let recording = recording.transpose()?;
        let page = outputs.report.as_deref().map(Replacing::create).transpose();
        let page = page.inspect_err(|_| recording.iter().for_each(|one| one.place.remove()))?;
        Ok(Self {
            printer: LivePrinter::new(outputs.json, outputs.color),
            recording,
            page: page.map(|file| (Page::default(), file)),
            failed: None,
            was_lost: false,
        })
    }

    fn begin(&mut self, machine: &Machine) -> io::Result<()> {
        if let Some((page, _)) = &mut self.page {
            page.begin(machine.clone());
        }
        let result = self.recording.as_mut().map_or(Ok(()), |one| one.recorder.begin(machine));
        result.map_err(|error| self.record_failed(&error))
    }

    fn take(&mut self, told: &LiveReport<'_>) -> io::Result<()> {
        if let Some(one) = &mut self.recording
            && let Err(error) = one.recorder.take(told)
        {
            return Err(self.record_failed(&error));
        }
        if let Some((page, _)) = &mut self.page {
            page.take(told);
        }
        match told {
            LiveReport::Note(note) => say(&format!("note: {note}")),
            LiveReport::Summary(summary) => self.was_lost = summary.is_bad(),
            _ => {}
        }
        self.printer.print(told)
    }

    fn record_failed(&mut self, error: &io::Error) -> io::Error {
        let path = self.recording.as_ref().map(|one| one.path.display().to_string()).unwrap_or_default();
        let next = "the lines before are in it; make room, or record elsewhere";
        self.failed = Some(anyhow!("record {path}: {error}; {next}"));
        io::Error::other("the recording failed")
    }

    /// Completes the files, also those of a run that an error ended.
    fn finish(mut self) -> anyhow::Result<()> {
        if let Some(one) = &self.recording {
            if one.recorder.is_empty() {
                one.place.remove();
            } else if let Err(error) = one.recorder.finish()
                && self.failed.is_none()
            {
                self.record_failed(&error);
            }
        }
        if let Some((page, file)) = self.page.take()
            && page.has_begun()
        {
            file.finish(&page.html())?;
        }
        self.failed.map_or(Ok(()), Err)
    }
}

pub(super) fn follow(options: live::Options, outputs: Outputs) -> anyhow::Result<Status> {
    let mut sink = Sink::open(&outputs)?;
    let mut tell = |told: LiveReport<'_>| {
        if let LiveReport::Ready { paths, .. } = &told {
            sink.begin(&Machine::gather(paths))?;
        }
        sink.take(&told)
    };
    let result = runtime()?.block_on(async {
        let end = signals::End::new()?;
        live::run(options, &mut tell, end.wait()).await.map_err(|error| match error {
            live::Error::Trace(error) => anyhow::Error::new(error),
            other => anyhow::Error::new(other),
        })
    });
    sink.finish()?;
    Ok(if result? { Status::Found } else { Status::Done })
}

/// What ends a replay early.
enum Ended {
    Damaged(Damaged),
    Output(io::Error),
}

impl From<Damaged> for Ended {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

pub(super) fn replay(file: &Path, outputs: Outputs) -> anyhow::Result<Status> {
    let input = BufReader::new(files::open(file)?);
    let mut sink = Sink::open(&outputs)?;
    let result = lines(input, &mut sink).map_err(|ended| match ended {
        Ended::Damaged(damaged) => anyhow!("replay {}: {damaged}", file.display()),
        Ended::Output(error) => anyhow::Error::new(Error::Output(error)),
    });
    let was_lost = sink.was_lost;
    sink.finish()?;
    result?;
    Ok(if was_lost { Status::Found } else { Status::Done })
}

fn lines(input: BufReader<std::fs::File>, sink: &mut Sink) -> Result<(), Ended> {
    let mut reader = Reader::new(input)?;
    sink.begin(&reader.machine).map_err(Ended::Output)?;
    while !hotr_user::ending::is_asked() && reader.next(|told| sink.take(&told).map_err(Ended::Output))? {}
    Ok(())
}
