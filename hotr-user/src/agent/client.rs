//! A subscriber, for programs: a stream of [`Event`]s of an agent. It needs no privilege.
//!
//! In: open directories. Out: what changes below them, as far as this process may read it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::UnixStream;

use super::error::ClientError;
use super::wire::{Event, Frames, LONGEST_EVENT, Request, VERSION, put};

/// See the module. The agent forgets the directories when it is dropped.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    frames: Frames,
    next_root: u32,
    is_over: bool,
}

impl Client {
    /// Connects to an agent; the first event is [`Event::Hello`]. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When there is no agent at the socket, or it does not take the greeting.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let connect = |source| ClientError::Connect { path: socket.to_owned(), source };
        let stream = UnixStream::connect(socket).await.map_err(connect)?;
        let client =
            Self { socket: stream, frames: Frames::new(LONGEST_EVENT), next_root: 0, is_over: false };
        client.send(&Request::Hello { version: VERSION }, None).await?;
        Ok(client)
    }

    /// Asks for the changes below a directory that is open for reading, and returns its number: an [`Event::Added`] or
    /// [`Event::Refused`] with it follows. The descriptor may be closed afterwards.
    ///
    /// # Errors
    /// When the agent has ended.
    pub async fn add(&mut self, directory: BorrowedFd<'_>) -> Result<u32, ClientError> {
        let root = self.next_root;
        self.next_root += 1;
        self.send(&Request::Add { root }, Some(directory)).await?;
        Ok(root)
    }

    /// Asks for no more changes below the directory of this number: an [`Event::Removed`] follows.
    ///
    /// # Errors
    /// When the agent has ended.
    pub async fn remove(&mut self, root: u32) -> Result<(), ClientError> {
        self.send(&Request::Remove { root }, None).await
    }

    /// The next event; `None` after an error. A future that is dropped before it is ready has lost nothing.
    pub async fn next(&mut self) -> Option<Result<Event, ClientError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    async fn send(&self, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<(), ClientError> {
        let mut frame = Vec::new();
        put(request, &mut frame);
        let mut sent = 0;
        while sent < frame.len() {
            self.socket.writable().await?;
            let rest = [io::IoSlice::new(&frame[sent..])];
            // The descriptor goes with the first byte.
            let with = fd.filter(|_| sent == 0);
            let result = self.socket.try_io(Interest::WRITABLE, || {
                let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                let fds: Vec<BorrowedFd<'_>> = with.into_iter().collect();
                if !fds.is_empty() {
                    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
                }
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                Ok(sendmsg(self.socket.as_fd(), &rest, &mut ancillary, flags)?)
            });
            match result {
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What it has said last is still to be read.
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, ClientError>> {
        loop {
            match self.frames.next() {
                Ok(Some(Event::Error { why })) => {
                    return Poll::Ready(Err(ClientError::Refused(why.into_owned())));
                }
                Ok(Some(event)) => return Poll::Ready(Ok(event)),
                Ok(None) => {}
                Err(garbage) => return Poll::Ready(Err(ClientError::Protocol(garbage.to_string()))),
            }
            let mut bytes = [0; 16 * 1024];
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => return Poll::Ready(Err(ClientError::Gone)),
                Ok(()) => self.frames.push(buffer.filled()),
                Err(error) if is_gone(&error) => return Poll::Ready(Err(ClientError::Gone)),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl Stream for Client {
    type Item = Result<Event, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let event = ready!(self.poll_event(context));
        self.is_over = event.is_err();
        Poll::Ready(Some(event))
    }
}
