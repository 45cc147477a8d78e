//! The one who reloads: takes orders, runs validation, action and health check one after the other, and tells what
//! became of each.
//!
//! In: [`Order`]s. Out: [`News`]. It runs beside the feed, so that changes are heard while a command runs; what comes
//! while it is busy is merged into one further reload, or handled as the busy policy says. When the orders end it
//! ends what it runs.

use std::collections::VecDeque;
use std::io::Write;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::ReloadOptions;
use super::echo::Echo;
use super::order::Order;
use crate::action::check::Failure;
use crate::action::emit::{Emitted, emit};
use crate::action::group::{self, Group, Stdin};
use crate::action::{Action, Busy, CommandSpec};
use crate::pipeline::confirm::Confirmed;
use crate::report::{Reload, ReloadState, Trigger};

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
    echo: Echo,
}

/// A command that is to go on running.
struct Service {
    group: Group,
    since: Instant,
    /// Keeps the file it was told to read.
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
            echo: Echo::default(),
        }
    }

    /// Works until the orders end.
    pub(super) async fn run(mut self) {
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

    fn tell(&self, news: News) {
        // Nobody listens only at the very end.
        let _ = self.news.send(news);
    }

    fn say(&self, text: impl Into<String>) {
        self.tell(News::Say(text.into()));
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
            self.say("the command has ended with exit status 0; waiting for a change");
            return;
        }
        if lived >= LIVED {
            self.backoff = FIRST_BACKOFF;
        }
        let wait = self.backoff;
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
        self.again_at = Some(Instant::now() + wait);
        self.say(format!(
            "the command has ended by itself after {} ms ({how}); starting it again in {} ms, or at the next change",
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
            self.say(format!("the command did not end within {limit} of its stop signal: killed"));
        }
    }

    /// Waits for a step of a reload, and takes what is ordered meanwhile; `None` when hotr is to end.
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
        if order.trigger == Trigger::Change {
            self.calm_down().await;
        }
        if self.ending {
            return;
        }
        self.seq += 1;
        let begun = Instant::now();
        if let Some(text) = self.echo.begins(&order, begun) {
            self.say(text);
        }
        self.report(&order, ReloadState::Started, None, None);
        let ended = self.steps(&order).await;
        let Some(ended) = ended else { return };
        let is_good = ended.state == ReloadState::Done;
        let is_bad = matches!(ended.state, ReloadState::Failed | ReloadState::Unhealthy);
        self.report(&order, ended.state, Some(begun.elapsed()), Some(ended));
        self.echo.ended(&order, Instant::now());
        if is_good {
            self.tell(News::Good(order.changes));
        } else {
            // A second rollback would put the same back.
            let roll_back = is_bad && order.trigger != Trigger::Rollback;
            self.tell(News::Bad { changes: order.changes, roll_back });
        }
    }

    fn report(&self, order: &Order, state: ReloadState, duration: Option<Duration>, ended: Option<Ended>) {
        let (status, why) = ended.map_or((None, None), |ended| (ended.status, ended.why));
        let changes = if state == ReloadState::Started { order.changes.clone() } else { Vec::new() };
        let (seq, trigger, time) = (self.seq, order.trigger, SystemTime::now());
        let reload = Reload { seq, time, state, trigger, changes, status, duration, why };
        self.tell(News::Report(Box::new(reload)));
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
        let emitted = match emit(self.options.emit, &order.changes) {
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
            self.tell(News::Clear(done));
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
                Busy::Queue => self.queue(order),
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
        std::thread::spawn(move || {
            // The child may have closed it.
            let _ = pipe.write_all(&bytes);
        });
    }
    Ok(group)
}
