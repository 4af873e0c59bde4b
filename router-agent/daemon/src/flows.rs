//! The answer to `flows`: sessions as the NSLP knows them, with volumes as the packet side counts them at this moment.

use std::collections::BTreeMap;

use gist::time::Instant;
use pbs_nslp::datapath::{Command, Event, Token};
use pbs_nslp::flow::FlowId;
use pbs_nslp::status::SessionStatus;
use serde_json::Value;

use crate::control::Request;
use crate::drive::Direction;
use crate::status;

/// Set in the tokens of questions that the daemon asks for itself; the cores count theirs up from 1.
const OWN: u64 = 1 << 63;

/// One session.
#[derive(Debug)]
pub struct Row {
    direction: Direction,
    shown: Value,
    epoch: Option<(FlowId, u32)>,
}

impl Row {
    /// The row of a session whose packets go through the worker at `direction`.
    pub fn new(direction: Direction, session: &SessionStatus, now: Instant) -> Self {
        let epoch = session.permission.as_ref().map(|permission| (session.flow, permission.spi));
        Self { direction, shown: status::session(session, now), epoch }
    }
}

/// Questions for the workers that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    last: u64,
    /// Which row of which request a token asks about.
    open: BTreeMap<Token, (u64, usize)>,
    requests: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    rows: Vec<Row>,
    open: usize,
}

impl Flows {
    /// Takes a request; gives the questions for the workers. Without any, the request is answered at once.
    pub(crate) fn ask(&mut self, request: Request, rows: Vec<Row>) -> Vec<(Direction, Command)> {
        self.last = self.last.wrapping_add(1);
        let number = self.last;
        let mut questions = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let Some((flow, spi)) = row.epoch else { continue };
            self.last = self.last.wrapping_add(1);
            let token = Token(OWN | self.last);
            self.open.insert(token, (number, place));
            questions.push((row.direction, Command::Snapshot { token, flow, spi }));
        }
        let waiting = Waiting { request, rows, open: questions.len() };
        self.requests.insert(number, waiting);
        self.finish(number);
        questions
    }

    /// Takes an event if it answers one of these questions; gives it back otherwise.
    pub(crate) fn hear(&mut self, event: Event) -> Option<Event> {
        let (token, counted) = match &event {
            Event::Applied { token, counted, .. } => (*token, Some(*counted)),
            Event::Failed { token, .. } => (*token, None),
            _ => return Some(event),
        };
        let Some((number, place)) = self.open.remove(&token) else { return Some(event) };
        if let Some(waiting) = self.requests.get_mut(&number) {
            waiting.open = waiting.open.saturating_sub(1);
            let shown = waiting.rows.get_mut(place).and_then(|row| row.shown.as_object_mut());
            if let (Some(shown), Some(counted)) = (shown, counted) {
                shown.insert("counted".to_owned(), counted.into());
            }
        }
        self.finish(number);
        None
    }

    fn finish(&mut self, number: u64) {
        if self.requests.get(&number).is_some_and(|waiting| waiting.open == 0)
            && let Some(waiting) = self.requests.remove(&number)
        {
            waiting.request.answer(Ok(waiting.rows.into_iter().map(|row| row.shown).collect()));
        }
    }
}
