//! The answer to `flows`: sessions as the NSLP knows them, with volumes as the packet side counts them at this moment.
//!
//! The table may be large and the workers have packets to judge: one request is answered at a time, and its questions go to the
//! workers in small lots, the next one when the last is answered.

use std::collections::{BTreeMap, VecDeque};

use gist::time::Instant;
use pbs_nslp::datapath::{Command, Event, Token};
use pbs_nslp::status::SessionStatus;
use serde_json::Value;

use crate::control::Request;
use crate::drive::Direction;
use crate::status;

/// Set in the tokens of questions that the daemon asks for itself; the cores count theirs up from 1.
const OWN: u64 = 1 << 63;
/// Rows that are asked about at a time: a worker takes more updates than that, so that those of the NSLP find room beside them.
const LOT: usize = 64;
/// Requests that may wait for their turn.
const MOST_WAITING: usize = 16;

/// One session.
#[derive(Debug)]
pub struct Row {
    direction: Direction,
    way: &'static str,
    session: SessionStatus,
    now: Instant,
    counted: Option<u64>,
}

impl Row {
    /// The row of a session, as it is at `now`, whose packets go through the worker at `direction`; `way` is the word for where they
    /// go.
    pub fn new(direction: Direction, way: &'static str, session: SessionStatus, now: Instant) -> Self {
        Self { direction, way, session, now, counted: None }
    }

    fn question(&self, token: Token) -> Option<(Direction, Command)> {
        let spi = self.session.permission.as_ref()?.spi;
        Some((self.direction, Command::Snapshot { token, flow: self.session.flow, spi }))
    }

    fn show(&self) -> Value {
        let mut shown = status::session(&self.session, self.way, self.now);
        if let (Some(fields), Some(counted)) = (shown.as_object_mut(), self.counted) {
            fields.insert("counted".to_owned(), counted.into());
        }
        shown
    }
}

/// Requests that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    last: u64,
    current: Option<Current>,
    waiting: VecDeque<Request>,
}

/// The request whose turn it is.
#[derive(Debug)]
struct Current {
    request: Request,
    rest: std::vec::IntoIter<Row>,
    lot: Vec<Row>,
    /// Which row of the lot a token asks about.
    open: BTreeMap<Token, usize>,
    shown: Vec<Value>,
}

impl Flows {
    /// Takes a request; it is answered in its turn.
    pub(crate) fn ask(&mut self, request: Request) {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back(request);
        } else {
            request.answer(Err(format!("{MOST_WAITING} requests for flows wait already")));
        }
    }

    /// Whether [`step`](Self::step) has something to do.
    pub(crate) fn is_ready(&self) -> bool {
        self.current.as_ref().map_or(!self.waiting.is_empty(), |current| current.open.is_empty())
    }

    /// Takes a request or a lot of rows up, or answers a request. `rows` is called for each request once; the questions are for the
    /// workers.
    pub(crate) fn step(&mut self, rows: impl FnOnce() -> Vec<Row>) -> Vec<(Direction, Command)> {
        let Some(mut current) = self.current.take() else {
            self.current = self.waiting.pop_front().filter(|request| !request.is_abandoned()).map(|request| Current::new(request, rows()));
            return Vec::new();
        };
        if !current.open.is_empty() {
            self.current = Some(current);
            return Vec::new();
        }
        current.shown.extend(current.lot.drain(..).map(|row| row.show()));
        current.lot.extend(current.rest.by_ref().take(LOT));
        if current.lot.is_empty() {
            current.request.answer(Ok(Value::Array(current.shown)));
            return Vec::new();
        }
        if current.request.is_abandoned() {
            return Vec::new();
        }
        let questions = current.questions(&mut self.last);
        self.current = Some(current);
        questions
    }

    /// Takes an event if it answers one of these questions; gives it back otherwise.
    pub(crate) fn hear(&mut self, event: Event) -> Option<Event> {
        let (token, counted) = match &event {
            Event::Applied { token, counted, .. } => (*token, Some(*counted)),
            Event::Failed { token, .. } => (*token, None),
            _ => return Some(event),
        };
        if token.0 & OWN == 0 {
            return Some(event);
        }
        if let Some(current) = &mut self.current
            && let Some(place) = current.open.remove(&token)
            && let Some(row) = current.lot.get_mut(place)
        {
            row.counted = counted;
        }
        None
    }
}

impl Current {
    fn new(request: Request, rows: Vec<Row>) -> Self {
        Self { request, shown: Vec::with_capacity(rows.len()), rest: rows.into_iter(), lot: Vec::new(), open: BTreeMap::new() }
    }

    fn questions(&mut self, last: &mut u64) -> Vec<(Direction, Command)> {
        let mut questions = Vec::new();
        for (place, row) in self.lot.iter().enumerate() {
            *last = last.wrapping_add(1) & !OWN;
            let token = Token(OWN | *last);
            if let Some(question) = row.question(token) {
                self.open.insert(token, place);
                questions.push(question);
            }
        }
        questions
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gist::wire::SessionId;
    use pbs_nslp::flow::FlowId;
    use pbs_nslp::status::PermissionStatus;
    use pbs_nslp::wire::Volume;
    use serde_json::json;
    use tokio::sync::oneshot;

    use super::*;

    type Answer = oneshot::Receiver<Result<Value, String>>;

    fn request() -> (Request, Answer) {
        Request::new(json!({ "command": "flows" }))
    }

    /// So many sessions, every other one with a permission.
    fn rows(count: u16) -> Vec<Row> {
        let row = |number: u16| {
            let flow = FlowId::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into(), 17, 1 + number, 9000).unwrap();
            let permission = number.is_multiple_of(2).then(|| PermissionStatus {
                spi: 256 + u32::from(number),
                algorithm: "hmac-sha256",
                allowed: Volume(1000),
                counted: Volume(0),
                expires_at: None,
                refresh: Duration::from_secs(5),
            });
            let state = "Permitted".into();
            let session = SessionStatus {
                flow,
                session: SessionId([7; 16]),
                state,
                permission,
                why: None,
                asks_again_at: None,
                path: gist::api::PathId::ROUTED,
                answered: None,
            };
            Row::new(0, "through", session, Instant::ZERO)
        };
        (0..count).map(row).collect()
    }

    fn answer(flows: &mut Flows, command: &Command, counted: u64) {
        let event = Event::Applied { token: command.token(), counted, highest: 0 };
        assert_eq!(flows.hear(event), None);
    }

    /// One request may put no more before the workers than a few updates at a time, and the next one waits.
    #[test]
    fn a_large_table_is_asked_about_in_lots_and_one_request_at_a_time() {
        let mut flows = Flows::default();
        let ((first, mut answered), (second, mut later)) = (request(), request());
        flows.ask(first);
        flows.ask(second);
        let (mut asked, mut most, mut tables) = (0, 0, 0);
        while answered.try_recv().is_err() {
            assert!(flows.is_ready() && later.try_recv().is_err());
            let questions = flows.step(|| {
                tables += 1;
                rows(1000)
            });
            most = most.max(questions.len());
            for (_, question) in &questions {
                assert!(!flows.is_ready(), "not before the lot is answered");
                asked += 1;
                answer(&mut flows, question, 77);
            }
        }
        assert_eq!((asked, most, tables), (500, LOT / 2, 1));
        assert!(flows.is_ready(), "the second one's turn");
    }

    #[test]
    fn every_row_is_shown_in_its_order_with_the_volume_of_this_moment() {
        let mut flows = Flows::default();
        let (request, mut answered) = request();
        flows.ask(request);
        let shown = loop {
            for (_, question) in flows.step(|| rows(200)) {
                answer(&mut flows, &question, 77);
            }
            if let Ok(answer) = answered.try_recv() {
                break answer.unwrap();
            }
        };
        let shown = shown.as_array().unwrap();
        let ports: Vec<u64> = shown.iter().map(|row| row["flow"]["source_port"].as_u64().unwrap()).collect();
        assert_eq!(ports, (1..=200).collect::<Vec<u64>>());
        assert!(shown.iter().step_by(2).all(|row| row["counted"] == 77) && shown[1]["counted"].is_null());
    }

    #[test]
    fn too_many_requests_are_refused_and_abandoned_ones_cost_nothing() {
        let mut flows = Flows::default();
        let mut answers: Vec<Answer> = Vec::new();
        for _ in 0..=MOST_WAITING {
            let (request, answer) = request();
            flows.ask(request);
            answers.push(answer);
        }
        let refused = answers.pop().unwrap().try_recv().unwrap().unwrap_err();
        assert!(refused.contains("wait already"), "{refused}");
        drop(answers);
        while flows.is_ready() {
            assert!(flows.step(|| panic!("nobody wants to know")).is_empty());
        }
    }
}
