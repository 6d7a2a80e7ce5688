//! Frames: what the bytes of a connection are cut into.
//!
//! A frame is its length (which counts itself), 24 bytes of header, and a payload. After a frame of kind
//! [`Kind::CallWithFds`] come as many single bytes as it announces file descriptors, each with one of them.

use std::collections::VecDeque;

/// libvirt's remote program.
pub(crate) const REMOTE: u32 = 0x2000_8086;

/// The program of pings, spelt in ASCII: `keep`.
pub(crate) const KEEPALIVE: u32 = 0x6b65_6570;

/// The version of both.
pub(crate) const VERSION: u32 = 1;

/// Length of the length and the header.
pub(crate) const HEAD: usize = 28;

/// The longest frame of the protocol: libvirt hangs up on longer ones, too.
const LONGEST: usize = 4 + (32 << 20);

/// Most file descriptors with one message.
const MOST_FDS: u32 = 32;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A client asks.
    Call,
    /// The answer.
    Reply,
    /// Nobody asked for it, and nobody answers: events and pings.
    Message,
    /// A piece of a stream.
    Stream,
    /// A client asks and hands over file descriptors.
    CallWithFds,
    /// The answer has file descriptors.
    ReplyWithFds,
    /// A piece of a stream that is all zeros and not sent.
    StreamHole,
}

impl Kind {
    const ALL: [Kind; 7] =
        [Kind::Call, Kind::Reply, Kind::Message, Kind::Stream, Kind::CallWithFds, Kind::ReplyWithFds, Kind::StreamHole];
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Well.
    Ok,
    /// The payload is an error.
    Error,
    /// More of the stream follows.
    Continue,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whose procedures are meant: [`REMOTE`], [`KEEPALIVE`].
    pub(crate) program: u32,
    /// Of the program.
    pub(crate) version: u32,
    /// Which of them.
    pub(crate) procedure: i32,
    /// What it is.
    pub(crate) kind: Kind,
    /// Chosen by who calls; the reply has the same.
    pub(crate) serial: u32,
    /// How it went.
    pub(crate) status: Status,
}

impl Header {
    /// The header of the reply to a call.
    pub(crate) fn reply(self, status: Status) -> Self {
        // The reply to a call with descriptors, or to a piece of a stream, is of the plain kind unless it has some itself.
        Header { kind: Kind::Reply, status, ..self }
    }

    /// An event.
    pub(crate) fn event(procedure: i32) -> Self {
        let (kind, status) = (Kind::Message, Status::Ok);
        Header { program: REMOTE, version: VERSION, procedure, kind, serial: 0, status }
    }

    fn read(bytes: &[u8; HEAD]) -> Option<Self> {
        let word = |at: usize| {
            let four = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
            u32::from_be_bytes(four)
        };
        Some(Header {
            program: word(4),
            version: word(8),
            procedure: word(12).cast_signed(),
            kind: *Kind::ALL.get(usize::try_from(word(16)).ok()?)?,
            serial: word(20),
            status: match word(24) {
                0 => Status::Ok,
                1 => Status::Error,
                2 => Status::Continue,
                _ => return None,
            },
        })
    }

    /// The whole frame.
    pub(crate) fn with(self, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEAD + payload.len()).unwrap_or(u32::MAX);
        let kind = Kind::ALL.iter().position(|kind| *kind == self.kind).unwrap_or_default();
        let words = [
            length,
            self.program,
            self.version,
            self.procedure.cast_unsigned(),
            u32::try_from(kind).unwrap_or_default(),
            self.serial,
            match self.status {
                Status::Ok => 0,
                Status::Error => 1,
                Status::Continue => 2,
            },
        ];
        let mut frame = Vec::with_capacity(HEAD + payload.len());
        frame.extend(words.into_iter().flat_map(u32::to_be_bytes));
        frame.extend(payload);
        frame
    }
}

/// A frame with all that belongs to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<F> {
    /// Its header.
    pub(crate) header: Header,
    /// What follows the header; without the number of descriptors.
    pub(crate) payload: Payload,
    /// The descriptors that came with it.
    pub(crate) fds: Vec<F>,
}

/// What follows a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// All of it.
    Whole(Vec<u8>),
    /// It was longer than what is taken, and thrown away as it came.
    TooLong,
}

/// Why a connection cannot go on: where the next frame begins is not known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Shorter than a header or longer than the protocol's longest.
    #[error("a frame of {0} bytes cannot be")]
    Length(u32),
    /// A kind or status that the protocol does not have.
    #[error("a frame of a kind that is not known")]
    Kind,
    /// More descriptors than a message can have, or fewer than it announced.
    #[error("file descriptors were announced that did not come, or too many")]
    Fds,
}

/// Cuts what comes into frames. Memory grows with what has come, never with what a length claims, and none is kept between
/// frames.
#[derive(Debug)]
pub(crate) struct Frames<F> {
    /// The longest payload that is kept.
    longest: usize,
    part: Part<F>,
    whole: VecDeque<Frame<F>>,
}

#[derive(Debug)]
enum Part<F> {
    /// Of the first 28 bytes.
    Head(Vec<u8>),
    /// Of the payload; so many bytes are missing.
    Body { header: Header, payload: Vec<u8>, missing: usize },
    /// Of a payload that nobody keeps.
    Skipped { header: Header, missing: usize },
    /// The single bytes after it.
    Fds { frame: Frame<F>, missing: u32 },
}

impl<F> Frames<F> {
    /// Nothing has come so far. Payloads up to `longest` bytes are kept.
    pub(crate) fn new(longest: usize) -> Self {
        Frames { longest, part: Part::Head(Vec::new()), whole: VecDeque::new() }
    }

    /// Whether a frame has begun and not ended.
    pub(crate) fn in_frame(&self) -> bool {
        !matches!(&self.part, Part::Head(head) if head.is_empty())
    }

    /// How many frames are whole and not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.whole.len()
    }

    /// The next frame that is whole.
    pub(crate) fn next(&mut self) -> Option<Frame<F>> {
        self.whole.pop_front()
    }

    /// Takes bytes as they came, with the descriptors that came with them. Descriptors that no message announced are
    /// dropped, and so closed.
    pub(crate) fn push(&mut self, mut bytes: &[u8], fds: Vec<F>) -> Result<(), FrameError> {
        let mut fds = fds.into_iter();
        while !bytes.is_empty() {
            let taken = self.step(bytes, &mut fds)?;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes some of the bytes and says how many.
    fn step(&mut self, bytes: &[u8], fds: &mut impl Iterator<Item = F>) -> Result<usize, FrameError> {
        let taken = match &mut self.part {
            Part::Head(head) => {
                let taken = bytes.len().min(HEAD - head.len());
                head.extend(bytes.iter().take(taken));
                taken
            }
            Part::Body { payload, missing, .. } => {
                let taken = bytes.len().min(*missing);
                payload.extend(bytes.iter().take(taken));
                *missing -= taken;
                taken
            }
            Part::Skipped { missing, .. } => {
                let taken = bytes.len().min(*missing);
                *missing -= taken;
                taken
            }
            Part::Fds { frame, missing } => {
                frame.fds.push(fds.next().ok_or(FrameError::Fds)?);
                *missing -= 1;
                1
            }
        };
        self.settle()?;
        Ok(taken)
    }

    /// Goes on to the next part if this one is whole.
    fn settle(&mut self) -> Result<(), FrameError> {
        loop {
            let part = std::mem::replace(&mut self.part, Part::Head(Vec::new()));
            self.part = match part {
                Part::Head(head) => match head.first_chunk::<HEAD>() {
                    Some(head) => self.begin(head)?,
                    None => {
                        self.part = Part::Head(head);
                        return Ok(());
                    }
                },
                Part::Body { header, payload, missing: 0 } => Self::with_fds(header, payload)?,
                Part::Skipped { header, missing: 0 } => {
                    self.whole.push_back(Frame { header, payload: Payload::TooLong, fds: Vec::new() });
                    return Ok(());
                }
                Part::Fds { frame, missing: 0 } => {
                    self.whole.push_back(frame);
                    return Ok(());
                }
                unfinished => {
                    self.part = unfinished;
                    return Ok(());
                }
            };
        }
    }

    fn begin(&self, head: &[u8; HEAD]) -> Result<Part<F>, FrameError> {
        let [a, b, c, d, ..] = *head;
        let claimed = u32::from_be_bytes([a, b, c, d]);
        let length = usize::try_from(claimed).ok().filter(|length| (HEAD..=LONGEST).contains(length));
        let missing = length.ok_or(FrameError::Length(claimed))? - HEAD;
        let header = Header::read(head).ok_or(FrameError::Kind)?;
        let with_fds = matches!(header.kind, Kind::CallWithFds | Kind::ReplyWithFds);
        if missing <= self.longest {
            Ok(Part::Body { header, payload: Vec::new(), missing })
        } else if with_fds {
            // How many descriptors follow would be lost with the payload.
            Err(FrameError::Length(claimed))
        } else {
            Ok(Part::Skipped { header, missing })
        }
    }

    /// What is still to come after a payload.
    fn with_fds(header: Header, mut payload: Vec<u8>) -> Result<Part<F>, FrameError> {
        let mut missing = 0;
        if matches!(header.kind, Kind::CallWithFds | Kind::ReplyWithFds) {
            let announced = payload.first_chunk().copied().map(u32::from_be_bytes);
            missing = announced.filter(|fds| *fds <= MOST_FDS).ok_or(FrameError::Fds)?;
            payload.drain(..4);
        }
        Ok(Part::Fds { frame: Frame { header, payload: Payload::Whole(payload), fds: Vec::new() }, missing })
    }
}

#[cfg(test)]
mod tests;
