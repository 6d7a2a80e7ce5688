//! What time does to a connection: who is silent is asked whether it lives, who does not take or end what it began is gone.
//! Pure: times are passed in.

use std::time::{Duration, Instant};

/// A frame that has begun must be whole after this time, and what waits for the client must move on.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A client that can answer is asked whether it lives after so much silence.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// So many questions without an answer, and it is gone.
pub(crate) const UNANSWERED: u32 = 5;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Nothing,
    /// The client is to be asked whether it lives.
    Ask,
    /// It takes nothing of what it is sent.
    Deaf,
    /// It does not end the frame it began.
    Unfinished,
    /// It does not answer.
    Silent,
}

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// It is read from. While it is not, its silence is ours.
    pub(crate) reads: bool,
    /// Something waits for the client to take it.
    pub(crate) sends: bool,
    /// The client answers questions whether it lives.
    pub(crate) answers: bool,
}

/// Since when what is so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    heard: Instant,
    unanswered: u32,
    /// Nothing was taken of what waits for the client.
    stuck: Option<Instant>,
    /// A frame has begun.
    begun: Option<Instant>,
    reads: bool,
}

impl Watch {
    /// A connection that is made now.
    pub(crate) fn new(now: Instant) -> Self {
        Watch { heard: now, unanswered: 0, stuck: None, begun: None, reads: true }
    }

    /// Bytes came: frames ended in them or not, and the last has not or has.
    pub(crate) fn heard(&mut self, now: Instant, ended: bool, in_frame: bool) {
        (self.heard, self.unanswered) = (now, 0);
        self.begun = in_frame.then(|| self.begun.filter(|_| !ended).unwrap_or(now));
    }

    /// The client took something.
    pub(crate) fn taken(&mut self) {
        self.stuck = None;
    }

    /// Notes how the connection is; when to look again, if nothing happens before.
    pub(crate) fn note(&mut self, now: Instant, state: State) -> Option<Instant> {
        self.stuck = state.sends.then(|| self.stuck.unwrap_or(now));
        if state.reads && !self.reads {
            (self.heard, self.unanswered) = (now, 0);
            self.begun = self.begun.map(|_| now);
        }
        self.reads = state.reads;
        self.next(state).map(|(at, _)| at)
    }

    /// What comes next if nothing happens, and when.
    fn next(&self, state: State) -> Option<(Instant, Due)> {
        let deaf = self.stuck.map(|since| (since + PATIENCE, Due::Deaf));
        let unfinished = self.begun.filter(|_| state.reads).map(|since| (since + PATIENCE, Due::Unfinished));
        let question = if self.unanswered < UNANSWERED { Due::Ask } else { Due::Silent };
        let asks = state.reads && state.answers;
        let silent = asks.then(|| (self.heard + SILENCE * (self.unanswered + 1), question));
        [deaf, unfinished, silent].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// What is due.
    pub(crate) fn due(&mut self, now: Instant, state: State) -> Due {
        let due = self.next(state).filter(|(at, _)| now >= *at).map_or(Due::Nothing, |(_, due)| due);
        if due == Due::Ask {
            self.unanswered += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: State = State { reads: true, sends: false, answers: true };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn who_answers_none_of_five_questions_is_gone_after_thirty_seconds() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        for asked in 1..=5 {
            assert_eq!(watch.note(start, QUIET), Some(after(start, asked * 5)));
            assert_eq!(watch.due(after(start, asked * 5 - 1), QUIET), Due::Nothing);
            assert_eq!(watch.due(after(start, asked * 5), QUIET), Due::Ask);
        }
        assert_eq!(watch.due(after(start, 29), QUIET), Due::Nothing);
        assert_eq!(watch.due(after(start, 30), QUIET), Due::Silent);
        watch.heard(after(start, 30), true, false);
        assert_eq!(watch.due(after(start, 34), QUIET), Due::Nothing);
        assert_eq!(watch.due(after(start, 35), QUIET), Due::Ask);
    }

    #[test]
    fn who_cannot_answer_is_never_asked() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let state = State { answers: false, ..QUIET };
        assert_eq!(watch.note(start, state), None);
        assert_eq!(watch.due(after(start, 1_000_000), state), Due::Nothing);
    }

    #[test]
    fn silence_counts_only_while_it_is_listened_to() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let busy = State { reads: false, ..QUIET };
        assert_eq!(watch.note(start, busy), None);
        assert_eq!(watch.note(after(start, 100), QUIET), Some(after(start, 105)));
    }

    #[test]
    fn a_frame_that_begins_ends_in_time() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let state = State { answers: false, ..QUIET };
        watch.heard(after(start, 1), false, true);
        watch.heard(after(start, 20), false, true);
        assert_eq!(watch.note(after(start, 20), state), Some(after(start, 31)), "bytes one by one give no more time");
        assert_eq!(watch.due(after(start, 31), state), Due::Unfinished);
        // One ended, and the next began.
        watch.heard(after(start, 31), true, true);
        assert_eq!(watch.note(after(start, 32), state), Some(after(start, 61)));
        watch.heard(after(start, 60), true, false);
        assert_eq!(watch.note(after(start, 60), state), None);
    }

    #[test]
    fn who_takes_nothing_of_what_it_is_sent_is_gone() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let state = State { sends: true, answers: false, ..QUIET };
        assert_eq!(watch.note(start, state), Some(after(start, 30)));
        watch.taken();
        assert_eq!(watch.note(after(start, 20), state), Some(after(start, 50)));
        assert_eq!(watch.due(after(start, 49), state), Due::Nothing);
        assert_eq!(watch.due(after(start, 50), state), Due::Deaf);
        assert_eq!(watch.note(after(start, 51), State { sends: false, ..state }), None);
    }
}
