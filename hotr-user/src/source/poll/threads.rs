//! The threads of a scan: each takes directories from its own pile, and gives half of it away when another has none.
//!
//! In: the first tasks. Out: findings of all threads, and the processor time they took.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::PollOptions;
use super::bulk::ext4::Tables;
use super::moves::Findings;
use super::pace::{HEAD_START, Pace, Progress, cpu_time};
use super::scan::{Scanner, Shared, Task};
use super::tree::{TOP, Tree};

#[derive(Default)]
struct TaskStack {
    tasks: Vec<Task>,
    /// Threads that take tasks, and those of them that wait for one.
    threads: usize,
    waiting: usize,
    is_over: bool,
}

struct Queue {
    pile: Mutex<TaskStack>,
    more: Condvar,
    hungry: AtomicBool,
}

/// Works off the tasks and all that come of them; `false` when it was cancelled. `whole`: the tasks lead to everything.
pub(super) fn run(
    tree: &mut Tree,
    options: &PollOptions,
    tasks: Vec<Task>,
    whole: bool,
    cancel: &AtomicBool,
    progress: &Progress,
) -> (Findings, Duration, bool) {
    // Less than a core needs one thread: more would only share its budget.
    let threads = if options.budget.is_some() { 1 } else { options.threads.max(1) };
    let is_first = tasks.iter().all(|task| task.fresh);
    let idle_after = options.idle.then_some(if is_first { HEAD_START } else { Duration::ZERO });
    // Before anything is read: what is mounted from now on, the next round sees.
    let mounts = super::bulk::mounts();
    let in_bulk = AtomicBool::new(mounts.is_some() && mounts == tree.mounts);
    let may_move = tree.dir(TOP).body.names().all(|(_, _, root)| root.to_bytes().starts_with(b"/"));
    let shared = Shared {
        may_move,
        tree: Mutex::new(tree),
        options,
        held: Arc::new(()),
        in_bulk,
        tables: Tables::new(mounts.as_deref()),
    };
    let queue = Queue {
        pile: Mutex::new(TaskStack { tasks, threads, ..TaskStack::default() }),
        more: Condvar::new(),
        hungry: AtomicBool::new(false),
    };
    let mut all = (Findings::default(), Duration::ZERO, true);
    let work = |idle_after| {
        let begin = cpu_time();
        let mut scanner = Scanner::new(&shared, Pace::new(options.budget, idle_after, cancel, progress));
        let whole = queue.work(&mut scanner);
        (scanner.findings, cpu_time().saturating_sub(begin), whole)
    };
    let work = &work;
    std::thread::scope(|scope| {
        let mut add = |(findings, cpu, whole)| {
            all.0.append(findings);
            all.1 += cpu;
            all.2 &= whole;
        };
        // Threads of their own: the caller's priority could not be raised again.
        let spawn = || std::thread::Builder::new().spawn_scoped(scope, move || work(idle_after)).ok();
        let handles: Vec<_> = (0..threads).filter_map(|_| spawn()).collect();
        if handles.is_empty() {
            // No thread can be started: the caller scans, as it is.
            queue.work_with(1);
            add(work(None));
        } else {
            queue.work_with(handles.len());
        }
        for handle in handles {
            add(handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    if whole && all.2 {
        tree.mounts = mounts;
    }
    all
}

impl Queue {
    fn work(&self, scanner: &mut Scanner<'_, '_, '_>) -> bool {
        let mut own = Vec::new();
        loop {
            let Some(task) = own.pop().or_else(|| self.take(&mut own)) else { return true };
            if !scanner.visit(&task, &mut own) {
                self.end();
                return false;
            }
            if self.hungry.load(Ordering::Relaxed) && own.len() > 1 {
                let half = own.len() / 2;
                let mut pile = self.pile.lock().unwrap_or_else(PoisonError::into_inner);
                pile.tasks.extend(own.drain(..half));
                self.more.notify_all();
            }
        }
    }

    /// Waits for a task; none when every thread waits.
    fn take(&self, own: &mut Vec<Task>) -> Option<Task> {
        let mut pile = self.pile.lock().unwrap_or_else(PoisonError::into_inner);
        pile.waiting += 1;
        while pile.tasks.is_empty() && !pile.is_over {
            if pile.waiting == pile.threads {
                pile.is_over = true;
                self.more.notify_all();
                break;
            }
            self.hungry.store(true, Ordering::Relaxed);
            pile = self.more.wait(pile).unwrap_or_else(PoisonError::into_inner);
        }
        if pile.is_over {
            return None;
        }
        pile.waiting -= 1;
        let left = pile.tasks.len() / 2;
        own.extend(pile.tasks.drain(left..));
        self.hungry.store(pile.tasks.is_empty() && pile.waiting > 0, Ordering::Relaxed);
        own.pop()
    }

    /// So many threads there are: fewer than were to be.
    fn work_with(&self, threads: usize) {
        let mut pile = self.pile.lock().unwrap_or_else(PoisonError::into_inner);
        if pile.threads != threads {
            pile.threads = threads;
            self.more.notify_all();
        }
    }

    fn end(&self) {
        let mut pile = self.pile.lock().unwrap_or_else(PoisonError::into_inner);
        pile.is_over = true;
        self.more.notify_all();
    }
}
