//! The worker that reloads: takes orders, runs validation, action and health check one after the other, and reports the
//! result of each.
//!
//! In: [`Order`]s. Out: [`News`]. It runs beside the feed, so that changes are received while a command runs; what
//! comes while it is busy is merged into one further reload, or handled as the busy policy says. When the orders end it
//! ends what it runs.

use std::collections::VecDeque;
use std::io::Write;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::ReloadOptions;
use super::loop_detector::{LoopDetector, Pause};
use super::order::Order;
use crate::action::check::Failure;
use crate::action::emit::{Emitted, emit};
use crate::action::group::{self, Group, Stdin};
use crate::action::{Action, Busy, CommandSpec};
use crate::pipeline::confirm::Confirmed;
use hotr_events::{Reload, ReloadState, Trigger};

/// The first wait before a command that failed at once is started again; doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A command that ran as long as this is not in a loop.
const LIVED: Duration = Duration::from_secs(10);
/// Health answers that are looked back on, and failures among them that make the next reload wait.
const HEALTHS: usize = 6;
const FLAPS: usize = 2;

/// What became of it.
#[derive(Debug)]
pub(super) enum News {
    Report(Box<Reload>),
    Say(String),
    /// Clear the terminal, and say when that is done.
    Clear(oneshot::Sender<()>),
    /// Reloaded and well: this is good content.
    Good(Vec<Confirmed>),
    /// Not reloaded, or not well.
    Bad {
        changes: Vec<Confirmed>,
        roll_back: bool,
    },
}

/// See the module.
pub(super) struct Worker {
    options: ReloadOptions,
    orders: UnboundedReceiver<Order>,
    news: UnboundedSender<News>,
    pending: Option<Order>,
    ending: bool,
    seq: u64,
    service: Option<Service>,
    backoff: Duration,
    again_at: Option<Instant>,
    healths: VecDeque<bool>,
    loops: LoopDetector,
}

/// A command that should keep running.
struct Service {
    group: Group,
    since: Instant,
    /// Keeps the file that it should read.
    _emitted: Emitted,
}

/// How an action ended.
struct Ended {
    state: ReloadState,
    status: Option<i32>,
    why: Option<String>,
}

impl Ended {
    const fn new(state: ReloadState, status: Option<i32>, why: Option<String>) -> Self {
        Self { state, status, why }
    }

    fn failed(why: String) -> Self {
        Self::new(ReloadState::Failed, None, Some(why))
    }
}

impl Worker {
    pub(super) fn new(
        options: ReloadOptions,
        orders: UnboundedReceiver<Order>,
        news: UnboundedSender<News>,
    ) -> Self {
        Self {
            options,
            orders,
            news,
            pending: None,
            ending: false,
            seq: 0,
            service: None,
            backoff: FIRST_BACKOFF,
            again_at: None,
            healths: VecDeque::new(),
            loops: LoopDetector::default(),
        }
    }

    /// Works until the orders end.
    pub(super) async fn run(mut self) {
        self.look_for_target();
        while !self.ending {
            let order = match self.pending.take() {
                Some(order) => Some(order),
                None => self.idle().await,
            };
            if let Some(order) = order {
                self.reload(order).await;
            }
        }
        self.stop_service().await;
    }

    /// Says at the start that there is no process to signal. In parallel to everything else: systemctl may take its
    /// time, and the service may be started later.
    fn look_for_target(&self) {
        if let Action::Signal(target, _) = self.options.action.clone() {
            let news = self.news.clone();
            tokio::task::spawn_local(async move {
                if let Err(why) = target.find_aside().await {
                    let _ = news.send(News::Say(format!("{why}; hotr looks for it again at each change")));
                }
            });
        }
    }

    fn send(&self, news: News) {
        // Only at the very end nobody receives it.
        let _ = self.news.send(news);
    }

    fn say(&self, text: impl Into<String>) {
        self.send(News::Say(text.into()));
    }

    /// Waits for an order, and for the service to need another start.
    async fn idle(&mut self) -> Option<Order> {
        let again_at = self.again_at;
        tokio::select! {
            order = self.orders.recv() => {
                self.ending = order.is_none();
                return order;
            }
            status = service_ended(&mut self.service) => self.service_has_ended(status),
            () = async { sleep_until(again_at.unwrap_or_else(Instant::now)).await }, if again_at.is_some() => {
                self.again_at = None;
                return Some(Order { trigger: Trigger::Exit, changes: Vec::new() });
            }
        }
        None
    }

    fn service_has_ended(&mut self, status: std::io::Result<ExitStatus>) {
        let Some(service) = self.service.take() else { return };
        let lived = service.since.elapsed();
        let how = status.map_or_else(
            |error| error.to_string(),
            |status| {
                if status.success() { String::new() } else { group::describe(status) }
            },
        );
        if how.is_empty() {
            self.say("the command exited with status 0; waiting for a change");
            return;
        }
        if lived >= LIVED {
            self.backoff = FIRST_BACKOFF;
        }
        let wait = self.backoff;
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
        self.again_at = Some(Instant::now() + wait);
        self.say(format!(
            "the command exited on its own after {} ms ({how}); restarting it in {} ms, or at the next change",
            lived.as_millis(),
            wait.as_millis()
        ));
    }

    async fn stop_service(&mut self) {
        self.again_at = None;
        if let Some(service) = self.service.take() {
            self.stop(service.group).await;
        }
    }

    async fn stop(&self, group: Group) {
        let stop = self.options.stop;
        if group.stop(stop).await {
            let limit = humantime::format_duration(stop.timeout);
            self.say(format!(
                "the command, or what it started, did not exit within {limit} of its stop signal: killed"
            ));
        }
    }

    /// Waits for a step of a reload, and takes what is ordered in the meantime; `None` when hotr should exit.
    async fn meanwhile<T>(&mut self, step: impl Future<Output = T>) -> Option<T> {
        let mut step = std::pin::pin!(step);
        loop {
            tokio::select! {
                out = &mut step => return Some(out),
                order = self.orders.recv() => match order {
                    Some(order) => self.queue(order),
                    None => {
                        self.ending = true;
                        return None;
                    }
                }
            }
        }
    }

    fn queue(&mut self, order: Order) {
        match &mut self.pending {
            Some(pending) => pending.merge(order),
            None => self.pending = Some(order),
        }
    }

    async fn reload(&mut self, order: Order) {
        let mut order = order;
        if let Some(pause) = self.loops.arrives(&order, Instant::now()) {
            order = self.hold(order, pause).await;
        }
        if order.trigger == Trigger::Change && !self.ending {
            self.calm_down().await;
        }
        if self.ending {
            return;
        }
        self.seq += 1;
        let begun = Instant::now();
        self.loops.begins(begun);
        self.report(&order, ReloadState::Started, None, None);
        let ended = self.steps(&order).await;
        let Some(ended) = ended else { return };
        let is_good = ended.state == ReloadState::Done;
        let is_bad = matches!(ended.state, ReloadState::Failed | ReloadState::Unhealthy);
        self.report(&order, ended.state, Some(begun.elapsed()), Some(ended));
        self.loops.ended(&order, Instant::now());
        if is_good {
            self.send(News::Good(order.changes));
        } else {
            // A second rollback would put the same back.
            let roll_back = is_bad && order.trigger != Trigger::Rollback;
            self.send(News::Bad { changes: order.changes, roll_back });
        }
    }

    fn report(&self, order: &Order, state: ReloadState, duration: Option<Duration>, ended: Option<Ended>) {
        let (status, why) = ended.map_or((None, None), |ended| (ended.status, ended.why));
        let reported = || order.changes.iter().map(|change| Arc::clone(&change.change)).collect();
        let changes = (state == ReloadState::Started).then(reported);
        let actors = if changes.is_some() { order.actors() } else { Vec::new() };
        let (seq, trigger, time) = (self.seq, order.trigger, SystemTime::now());
        let reload = Reload { seq, time, state, trigger, changes, actors, status, duration, why };
        self.send(News::Report(Box::new(reload)));
    }

    /// Lets a reload of a loop wait. What comes in the meantime joins it, and is not held if it is no part of the loop.
    async fn hold(&mut self, mut order: Order, Pause { time, text }: Pause) -> Order {
        if let Some(text) = text {
            self.say(text);
        }
        let over = Instant::now() + time;
        let mut over = std::pin::pin!(sleep_until(over));
        loop {
            let more = tokio::select! {
                () = &mut over => return order,
                more = self.orders.recv() => more,
            };
            let Some(more) = more else {
                self.ending = true;
                return order;
            };
            let is_loop = more.trigger == Trigger::Change && self.loops.is_same(&more);
            order.merge(more);
            if !is_loop {
                return order;
            }
        }
    }

    /// A service whose health comes and goes is reloaded less and less often.
    async fn calm_down(&mut self) {
        let failures = self.healths.iter().filter(|healthy| !**healthy).count();
        if failures < FLAPS {
            return;
        }
        let doublings = u32::try_from(failures - FLAPS).unwrap_or(0);
        let wait = Duration::from_secs(1) * 2_u32.pow(doublings);
        let (of, text) = (self.healths.len(), humantime::format_duration(wait));
        self.say(format!(
            "health failed after {failures} of the last {of} reloads; the next one waits {text}"
        ));
        self.meanwhile(sleep(wait)).await;
    }

    /// Validation, action, health; `None` when hotr is to end.
    async fn steps(&mut self, order: &Order) -> Option<Ended> {
        let emitted = match emit(self.options.emit, &order.changes, self.options.action.identity()) {
            Ok(emitted) => emitted,
            Err(error) => {
                return Some(Ended::failed(format!("write the list of changes: {error}; free space")));
            }
        };
        if let Some(validate) = self.options.validate.clone()
            && let Err(Failure { status, why }) = self.meanwhile(validate.once(&emitted.env)).await?
        {
            let why = format!("{why}; not reloaded");
            return Some(Ended::new(ReloadState::Invalid, status, Some(why)));
        }
        if !self.options.delay.is_zero() {
            self.meanwhile(sleep(self.options.delay)).await?;
        }
        if self.options.clear {
            // Not after the command has begun to write.
            let (done, cleared) = oneshot::channel();
            self.send(News::Clear(done));
            let _ = self.meanwhile(cleared).await?;
        }
        let env = emitted.env.clone();
        let ended = self.act(emitted).await?;
        let Some(health) = self.options.health.clone().filter(|_| ended.state == ReloadState::Done) else {
            return Some(ended);
        };
        let health = self.meanwhile(health.repeatedly(&env)).await?;
        self.healths.push_back(health.is_ok());
        if self.healths.len() > HEALTHS {
            self.healths.pop_front();
        }
        Some(match health {
            Ok(()) => ended,
            Err(Failure { status, why }) => Ended::new(ReloadState::Unhealthy, status, Some(why)),
        })
    }

    async fn act(&mut self, emitted: Emitted) -> Option<Ended> {
        match self.options.action.clone() {
            Action::Report => Some(Ended::new(ReloadState::Done, None, None)),
            Action::Signal(target, signal) => Some(match self.meanwhile(target.send_aside(signal)).await? {
                Ok(_) => Ended::new(ReloadState::Done, None, None),
                Err(why) => Ended::failed(why),
            }),
            Action::Restart(command) => {
                self.stop_service().await;
                Some(self.start_service(&command, emitted))
            }
            Action::Run(command) => self.run_once(&command, &emitted).await,
        }
    }

    fn start_service(&mut self, command: &CommandSpec, emitted: Emitted) -> Ended {
        match start(command, &emitted) {
            Ok(group) => {
                self.service = Some(Service { group, since: Instant::now(), _emitted: emitted });
                Ended::new(ReloadState::Done, None, None)
            }
            Err(error) => Ended::failed(group::explain(command, &error)),
        }
    }

    async fn run_once(&mut self, command: &CommandSpec, emitted: &Emitted) -> Option<Ended> {
        let mut group = match start(command, emitted) {
            Ok(group) => group,
            Err(error) => return Some(Ended::failed(group::explain(command, &error))),
        };
        let mut is_said = false;
        loop {
            let order = tokio::select! {
                status = group.ended() => return Some(match status {
                    Ok(status) if status.success() => Ended::new(ReloadState::Done, Some(0), None),
                    Ok(status) => {
                        let why = status.code().is_none().then(|| group::describe(status));
                        Ended::new(ReloadState::Failed, Some(group::number(status)), why)
                    }
                    Err(error) => Ended::failed(error.to_string()),
                }),
                order = self.orders.recv() => order,
            };
            let Some(order) = order else {
                self.ending = true;
                self.stop(group).await;
                return None;
            };
            match self.options.busy {
                Busy::Queue => {
                    if order.trigger == Trigger::Change && !std::mem::replace(&mut is_said, true) {
                        self.say(format!(
                            "change queued: command still running (pid {}); use -r to restart it",
                            group.pid()
                        ));
                    }
                    self.queue(order);
                }
                Busy::DoNothing => self.say(order.dropped()),
                Busy::Signal => group.signal(self.options.stop.signal),
                Busy::Restart => {
                    self.queue(order);
                    self.stop(group).await;
                    return Some(Ended::new(
                        ReloadState::Replaced,
                        None,
                        Some("newer changes came".to_owned()),
                    ));
                }
            }
        }
    }
}

async fn service_ended(service: &mut Option<Service>) -> std::io::Result<ExitStatus> {
    match service {
        Some(service) => service.group.ended().await,
        None => std::future::pending().await,
    }
}

/// Starts a command and gives it its changes. A thread writes them: a child need not read its stdin.
fn start(command: &CommandSpec, emitted: &Emitted) -> std::io::Result<Group> {
    let stdin = if emitted.stdin.is_some() { Stdin::Piped } else { Stdin::Empty };
    let mut group = Group::start(command, stdin, &emitted.env)?;
    if let (Some(mut pipe), Some(bytes)) = (group.take_stdin(), emitted.stdin.clone()) {
        std::thread::Builder::new().name("hotr-stdin".to_owned()).spawn(move || {
            // The child may have closed it.
            let _ = pipe.write_all(&bytes);
        })?;
    }
    Ok(group)
}
