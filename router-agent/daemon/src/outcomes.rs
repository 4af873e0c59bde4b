//! People who have asked for a permission and wait for what comes of it (`pbs request`).

use std::time::Duration;

use gist::time::Instant;
use pbs_nslp::flow::FlowId;
use pbs_nslp::report::{Report, ReportEvent, Setback};
use pbs_nslp::wire::{NotifyCode, Volume};
use serde_json::{Value, json};

use crate::control::Request;

/// Longest wait. A sender gives up after 15 s.
pub const LONGEST: Duration = Duration::from_secs(20);
/// Requests that may wait at a time: half of the control socket's places, so that others are heard.
const MOST_WAITING: usize = 8;
/// Things heard on the way that are kept for the answer; a flow has hardly more nodes that complain.
const MOST_NOTES: usize = 8;

/// Requests whose outcome is not known yet.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    waiting: Vec<Waiting>,
}

/// One request.
#[derive(Debug)]
struct Waiting {
    request: Request,
    flow: FlowId,
    /// The allowed volume before, if there was a permission.
    before: Option<u64>,
    /// Whether a Query has left since.
    asked: bool,
    /// What was heard on the way, in its order.
    notes: Vec<String>,
    until: Instant,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    /// The stable word.
    word: &'static str,
    why: String,
    allowed: Option<u64>,
}

impl Outcomes {
    /// Keeps a request that a core has taken up. `before` is what the flow was allowed until now, if anything.
    pub(crate) fn wait(&mut self, request: Request, flow: FlowId, before: Option<u64>, now: Instant) {
        self.waiting.retain(|waiting| !waiting.request.is_abandoned());
        if self.waiting.len() >= MOST_WAITING {
            request.answer(Err(format!(
                "{flow}: asked, but {MOST_WAITING} requests wait for their outcome already; see `flows`, or use --no-wait"
            )));
            return;
        }
        let until = now + LONGEST;
        self.waiting.push(Waiting { request, flow, before, asked: false, notes: Vec::new(), until });
    }

    /// Hears what happened to a flow that this node sends.
    pub(crate) fn hear(&mut self, report: &Report) {
        let Some(flow) = report.flow else { return };
        for mut waiting in std::mem::take(&mut self.waiting) {
            match (waiting.flow == flow).then(|| waiting.hear(&report.event)).flatten() {
                Some(outcome) => waiting.answer(outcome),
                None => self.waiting.push(waiting),
            }
        }
    }

    /// When a wait ends next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    /// Ends the waits that have been long enough.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.until <= now {
                let why = format!("no answer within {} s; the host may go on asking", LONGEST.as_secs());
                waiting.answer(Outcome { word: "no_answer", why, allowed: None });
            } else {
                self.waiting.push(waiting);
            }
        }
    }
}

impl Waiting {
    fn answer(self, outcome: Outcome) {
        let Outcome { word, why, allowed } = outcome;
        let before: Vec<&String> = self.notes.iter().filter(|note| !why.contains(note.as_str())).collect();
        self.request.answer(Ok(json!({
            "outcome": word,
            "flow": self.flow.to_string(),
            "why": why,
            "heard": before,
            "allowed": allowed.or(self.before),
        })));
    }

    fn hear(&mut self, event: &ReportEvent) -> Option<Outcome> {
        let no = |word| Some(Outcome { word, why: event.to_string(), allowed: None });
        match event {
            ReportEvent::Asked { .. } => {
                self.asked = true;
                None
            }
            ReportEvent::Granted { allowed, .. } => self.granted(*allowed, event),
            ReportEvent::Refreshed { allowed, .. } => self.refreshed(*allowed, event),
            ReportEvent::Unreachable { cause: Some(Setback::Notified { code, .. }) } if is_refusal(*code) => no("refused"),
            ReportEvent::Unreachable { .. } => no("unreachable"),
            ReportEvent::Unanswered => no("unreachable"),
            ReportEvent::Denied { .. } | ReportEvent::Revoked | ReportEvent::HeldDown { .. } | ReportEvent::Exhausted { .. } => {
                no("denied")
            }
            ReportEvent::AlgorithmRefused
            | ReportEvent::Released
            | ReportEvent::Superseded
            | ReportEvent::Distrusted { .. }
            | ReportEvent::DatapathFailed { .. }
            | ReportEvent::NotBuilt { .. } => no("failed"),
            &ReportEvent::Notified { code, detail, reporter, .. } => self.note(Setback::Notified { code, detail, reporter }.to_string()),
            ReportEvent::Undelivered { .. }
            | ReportEvent::Refused(_)
            | ReportEvent::KeySwapRefused { .. }
            | ReportEvent::NoOtherPath
            | ReportEvent::LeftBehind
            | ReportEvent::PathChanged { .. } => self.note(event.to_string()),
            // What is of no concern to a sender's question, or not its end: a permission that expires is asked for anew.
            ReportEvent::Installed { .. }
            | ReportEvent::Compared { .. }
            | ReportEvent::Evidence(_)
            | ReportEvent::Attacked { .. }
            | ReportEvent::Expired { .. }
            | ReportEvent::OverBudget { .. }
            | ReportEvent::BudgetSpent
            | ReportEvent::Stray
            | ReportEvent::Notifying { .. }
            | ReportEvent::NotANewEpoch { .. }
            | ReportEvent::Rekeyed { .. }
            | ReportEvent::NotActedUpon => None,
        }
    }

    fn granted(&self, allowed: Volume, event: &ReportEvent) -> Option<Outcome> {
        Some(Outcome { word: "granted", why: event.to_string(), allowed: Some(allowed.0) })
    }

    /// A Permission for an epoch that goes on: the answer only if it brings more, or if a Query of later than the request has left.
    fn refreshed(&self, allowed: Volume, event: &ReportEvent) -> Option<Outcome> {
        if self.before.is_none_or(|before| allowed.0 > before) {
            return self.granted(allowed, event);
        }
        self.asked.then(|| Outcome { word: "denied", why: format!("no more than before: {event}"), allowed: Some(allowed.0) })
    }

    fn note(&mut self, note: String) -> Option<Outcome> {
        if self.notes.len() < MOST_NOTES && !self.notes.contains(&note) {
            self.notes.push(note);
        }
        None
    }
}

/// Whether a notice says that its maker will not pass the Query on, and not that the way is disturbed.
fn is_refusal(code: NotifyCode) -> bool {
    !matches!(
        code,
        NotifyCode::NoSecureChannel | NotifyCode::NoState | NotifyCode::RouteChanged | NotifyCode::Overload | NotifyCode::Other(_)
    )
}

/// Whether the answer to a request that waited is the permission; otherwise why not, for people.
pub fn refusal(answer: &Value) -> Option<String> {
    let text = |field| answer.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("outcome") == "granted" {
        return None;
    }
    let heard: Vec<&str> = answer.get("heard").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let heard = if heard.is_empty() { String::new() } else { format!(" (on the way: {})", heard.join("; ")) };
    Some(format!("{}: {}: {}{heard}", text("outcome"), text("flow"), text("why")))
}

#[cfg(test)]
mod tests {
    use gist::wire::SessionId;
    use tokio::sync::oneshot;

    use super::*;

    type Answer = oneshot::Receiver<Result<Value, String>>;

    fn flow(port: u16) -> FlowId {
        FlowId::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into(), 17, port, 9000).unwrap()
    }

    fn report(port: u16, event: ReportEvent) -> Report {
        Report { flow: Some(flow(port)), session: SessionId([7; 16]), rule: "", event }
    }

    fn asked(outcomes: &mut Outcomes, port: u16, before: Option<u64>) -> Answer {
        let (request, answer) = Request::new(json!({ "command": "request" }));
        outcomes.wait(request, flow(port), before, Instant::ZERO);
        answer
    }

    fn refreshed(allowed: u64) -> ReportEvent {
        ReportEvent::Refreshed { number: 7, allowed: Volume(allowed), ttl: Duration::from_secs(60) }
    }

    const QUERY: ReportEvent = ReportEvent::Asked { number: 6, requested: None, sent: None };

    #[test]
    fn a_request_ends_with_what_is_said_about_its_own_flow_and_tells_what_was_heard_on_the_way() {
        let mut outcomes = Outcomes::default();
        let (mut first, mut second) = (asked(&mut outcomes, 1, None), asked(&mut outcomes, 2, None));
        let reporter = [192, 0, 2, 254].into();
        outcomes.hear(&report(1, QUERY));
        outcomes.hear(&report(1, ReportEvent::Notified { code: NotifyCode::Certificate, detail: 4, number: 6, reporter }));
        let cause = Some(Setback::Notified { code: NotifyCode::NoState, detail: 2, reporter });
        outcomes.hear(&report(1, ReportEvent::Unreachable { cause }));
        let answer = first.try_recv().unwrap().unwrap();
        let said = refusal(&answer).unwrap();
        for word in [
            "unreachable: ",
            "192.0.2.254 notified NoState (14/2): no receiver",
            "Certificate (10/4): certificate does not name the address",
        ] {
            assert!(said.contains(word), "{word} is missing in {said}");
        }
        let mut third = asked(&mut outcomes, 3, None);
        let cause = Some(Setback::Notified { code: NotifyCode::LocalPolicy, detail: 0, reporter });
        outcomes.hear(&report(3, ReportEvent::Unreachable { cause }));
        let said = refusal(&third.try_recv().unwrap().unwrap()).unwrap();
        assert!(
            said.starts_with("refused: ") && said.contains("192.0.2.254 notified LocalPolicy (18/0): local policy forbids it"),
            "{said}"
        );
        let granted = ReportEvent::Granted { spi: 256, allowed: Volume(9), ttl: Duration::from_secs(60), refresh: Duration::from_secs(5) };
        outcomes.hear(&report(2, granted));
        let answer = second.try_recv().unwrap().unwrap();
        assert_eq!((refusal(&answer), &answer["allowed"]), (None, &json!(9)));
    }

    #[test]
    fn more_for_a_flow_that_has_a_permission_is_more_or_a_no() {
        let mut outcomes = Outcomes::default();
        let (mut first, mut second) = (asked(&mut outcomes, 1, Some(100)), asked(&mut outcomes, 2, Some(100)));
        for port in [1, 2] {
            // The answer to a Query that was under way before.
            outcomes.hear(&report(port, refreshed(100)));
            outcomes.hear(&report(port, QUERY));
        }
        outcomes.hear(&report(1, refreshed(150)));
        assert_eq!(refusal(&first.try_recv().unwrap().unwrap()), None);
        assert!(second.try_recv().is_err());
        outcomes.hear(&report(2, refreshed(100)));
        let said = refusal(&second.try_recv().unwrap().unwrap()).unwrap();
        assert!(said.starts_with("denied: ") && said.contains("no more than before"), "{said}");
    }

    #[test]
    fn a_wait_has_an_end_and_waits_are_bounded() {
        let mut outcomes = Outcomes::default();
        let mut answers: Vec<Answer> = (0..=MOST_WAITING).map(|_| asked(&mut outcomes, 1, None)).collect();
        let refused = answers.pop().unwrap().try_recv().unwrap().unwrap_err();
        assert!(refused.contains("wait for their outcome already"), "{refused}");
        assert_eq!(outcomes.poll_timeout(), Some(Instant::ZERO + LONGEST));
        drop(answers.pop());
        answers.push(asked(&mut outcomes, 2, None));
        outcomes.handle_timeout(Instant::ZERO + LONGEST);
        assert_eq!(outcomes.poll_timeout(), None);
        for mut answer in answers {
            assert_eq!(answer.try_recv().unwrap().unwrap()["outcome"], "no_answer");
        }
    }
}
