//! What sender, receiver and router have in common: the clock, the checks, the way out.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use gist::api::{Carriage, MessageHandle, PathId, Principal, ReceivedMessage, Routing, SendMessage, TransferAttributes};
use gist::time::Instant;
use gist::wire::{Direction, Mri, NslpId, SessionId};

use crate::admission::{Admission, AdmissionLimits, Buckets, NamedBuckets, Now, Rate, Refusal, Signer, is_notice};
use crate::clock::WallClock;
use crate::credentials::{Authority, CertificateError, CertificatePath};
use crate::datapath::{Command, Token};
use crate::detection::{Finding, Test};
use crate::fair_queue::{MESSAGE_COST, SIGNATURE_COST};
use crate::flow::FlowId;
use crate::output::Output;
use crate::report::{Attack, Report, ReportEvent};
use crate::wire::{self, AlgorithmStanding, Notify, NotifyCode, SymmetricAlgorithm, number};

/// Names a session at one node: one session has one flow, but a flow may have an old and a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// The flow.
    pub flow: FlowId,
    /// The session.
    pub session: SessionId,
}

impl SessionKey {
    /// All names of a flow's sessions.
    pub(crate) fn range(flow: FlowId) -> RangeInclusive<Self> {
        Self { flow, session: SessionId([0; 16]) }..=Self { flow, session: SessionId([u8::MAX; 16]) }
    }
}

/// What every PBS node is told, whatever its part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeConfig {
    /// The application's number.
    pub nslp_id: NslpId,
    /// The address under which this node reports in notices.
    pub address: IpAddr,
    /// Bounds of what checking messages keeps.
    pub admission: AdmissionLimits,
    /// Notices for one peer (appendix A). Those about one source behind it may be half as many.
    pub notify_rate: Rate,
    /// Whether packets may be authenticated by HMAC-SHA-1-96; not by default.
    pub hmac_sha1: bool,
}

impl NodeConfig {
    /// The profile's constants.
    pub fn new(nslp_id: NslpId, address: IpAddr) -> Self {
        let notify_rate = Rate { per_second: 10, burst: 20 };
        Self { nslp_id, address, admission: AdmissionLimits::default(), notify_rate, hmac_sha1: false }
    }

    /// Whether packets may pass here that are authenticated by this code.
    pub fn may_pass(&self, mac: SymmetricAlgorithm) -> bool {
        match mac.standing() {
            AlgorithmStanding::Supported => true,
            AlgorithmStanding::ByConfiguration => self.hmac_sha1,
            AlgorithmStanding::Refused => false,
        }
    }

    /// Whether an end may use this code for a flow whose rule prefers `preferred`: what needs to be configured has to be named there too.
    pub fn may_use(&self, mac: SymmetricAlgorithm, preferred: Option<SymmetricAlgorithm>) -> bool {
        self.may_pass(mac) && (mac.standing() == AlgorithmStanding::Supported || preferred == Some(mac))
    }
}

/// How often things happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Counters {
    /// Rows taken, by rule.
    pub rules: BTreeMap<&'static str, u64>,
    /// Rows that apply but are not acted upon in this version, by rule.
    pub not_acted_upon: BTreeMap<&'static str, u64>,
    /// Messages refused, by the code of the Notify.
    pub refused: BTreeMap<NotifyCode, u64>,
    /// Those of them, and of other messages that changed nothing, that no report tells of, since their peer had too many.
    pub refused_silently: u64,
    /// Permissions, and waits for one, that ended because a signer's certificate is believed no more, by why it is not.
    pub distrusted: BTreeMap<String, u64>,
    /// What comparisons and packets have given away, by test (appendix E); `overrun` is more than the allowed volume.
    pub findings: BTreeMap<String, Findings>,
    /// Events that no row is for.
    pub ignored: u64,
}

/// Verdicts of one test.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Findings {
    /// How many.
    pub times: u64,
    /// The last one, with its flow and its numbers.
    pub last: String,
}

/// How a message travels.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) session: SessionId,
    /// With the direction the message goes.
    pub(crate) mri: Mri,
    /// As received, for a message that is passed on.
    pub(crate) hop_count: Option<u8>,
    /// How long GIST may try.
    pub(crate) timeout: Duration,
    /// Whose message led to this one, if it is passed on: GIST counts what it keeps for it against the same peer.
    pub(crate) on_behalf_of: Option<Principal>,
    /// By which way out the next node is to be found.
    pub(crate) path: PathId,
}

impl Envelope {
    /// For passing on what was received.
    pub(crate) fn onward(received: &ReceivedMessage) -> Self {
        Self {
            hop_count: Some(received.hop_count),
            on_behalf_of: Some(received.principal),
            ..Self::own(received.session, received.mri.clone(), ANSWER_TIMEOUT)
        }
    }

    /// For a message of somebody else that goes on once more.
    pub(crate) fn repeated(session: SessionId, mri: Mri, hop_count: u8) -> Self {
        Self { hop_count: Some(hop_count), ..Self::own(session, mri, ANSWER_TIMEOUT) }
    }

    /// For what this node says of itself.
    pub(crate) fn own(session: SessionId, mri: Mri, timeout: Duration) -> Self {
        Self { session, mri, hop_count: None, timeout, on_behalf_of: None, path: PathId::ROUTED }
    }
}

/// T.O.: how long the first try waits for an answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A node outlives 3.5 soft-state periods without refresh.
pub(crate) fn lifetime(refresh: Duration) -> Duration {
    refresh.saturating_mul(7) / 2
}

/// How long GIST keeps routing state before it asks anew by itself. Where T is shorter, each refresh makes it ask, so that a
/// path that has moved unseen is known within T.
pub(crate) const PROBED_BY_GIST: Duration = Duration::from_secs(30);

/// Longest time limit that is honoured (appendix A).
pub(crate) const TTL_MAXIMUM: Duration = Duration::from_secs(24 * 3600);

/// How far the floor lies before the start.
const FLOOR_BEFORE_START: u64 = 5;

/// A row that is not acted upon is reported so often at most; all of them are counted.
const LOUD_RATE: Rate = Rate { per_second: 1, burst: 10 };

/// Messages of one peer that change nothing, refused or not, are reported so often at most; all of them are counted.
const REFUSALS_RATE: Rate = Rate { per_second: 10, burst: 50 };

/// All who are not authenticated: they may choose any principal, and as many as they like.
const ANYBODY: Principal = Principal([0; 32]);

/// The common part of the machines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) nslp_id: NslpId,
    address: IpAddr,
    clock: WallClock,
    pub(crate) admission: Admission,
    pub(crate) counters: Counters,
    notices: Buckets<Principal>,
    notices_about: NamedBuckets<IpAddr>,
    refusals: Buckets<Principal>,
    loud: Buckets<&'static str>,
    tokens: u64,
    handles: u64,
    outputs: VecDeque<Output>,
}

impl Node {
    pub(crate) fn new(config: &NodeConfig, authority: Arc<dyn Authority>, unix_seconds: u64, now: Instant) -> Self {
        Self {
            nslp_id: config.nslp_id,
            address: config.address,
            clock: WallClock::new(unix_seconds, now),
            admission: Admission::new(authority, config.admission),
            counters: Counters::default(),
            notices: Buckets::new(config.notify_rate, config.admission.buckets),
            notices_about: NamedBuckets::new(half(config.notify_rate), config.admission.buckets),
            refusals: Buckets::new(REFUSALS_RATE, config.admission.buckets),
            loud: Buckets::new(LOUD_RATE, config.admission.buckets),
            tokens: 0,
            handles: 0,
            outputs: VecDeque::new(),
        }
    }

    pub(crate) fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant) {
        if let Some(latest) = self.clock.set(unix_seconds, now) {
            // The clock went back: what the window has refused already would come into it again (TMP-10).
            let floor = number::at(latest.saturating_sub(u64::from(number::WINDOW_PAST)));
            self.admission.tombstones.raise_floor(floor);
        }
    }

    /// Unix time in seconds.
    pub(crate) fn unix(&self, now: Instant) -> u64 {
        self.clock.unix(now)
    }

    /// Refuses everything that may have been accepted before this node started (FN-60, X-63).
    pub(crate) fn raise_floor(&mut self, now: Instant) {
        let floor = number::at(self.unix(now).saturating_sub(FLOOR_BEFORE_START));
        self.admission.tombstones.raise_floor(floor);
    }

    /// Keeps the last number of a signer whose state goes (INV-05).
    pub(crate) fn bury(&mut self, signer: Signer, number: u32, peer: Principal, now: Instant) {
        let now = Now { unix: self.unix(now), instant: now };
        self.admission.tombstones.bury(signer, number, peer, now);
    }

    /// The same with nothing counted, and nothing used up of what is left to whom.
    pub(crate) fn uncounted(&self, config: &NodeConfig) -> Self {
        Self {
            admission: self.admission.uncounted(),
            counters: Counters::default(),
            notices: Buckets::new(config.notify_rate, config.admission.buckets),
            notices_about: NamedBuckets::new(half(config.notify_rate), config.admission.buckets),
            refusals: Buckets::new(REFUSALS_RATE, config.admission.buckets),
            loud: Buckets::new(LOUD_RATE, config.admission.buckets),
            handles: 0,
            ..self.clone()
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn token(&mut self) -> Token {
        self.tokens = self.tokens.wrapping_add(1);
        Token(self.tokens)
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.push(Output::Datapath(command));
    }

    pub(crate) fn report(&mut self, flow: Option<FlowId>, session: SessionId, rule: &'static str, event: ReportEvent) {
        self.push(Output::Report(Report { flow, session, rule, event }));
    }

    /// Reports about a session.
    pub(crate) fn tell(&mut self, key: SessionKey, rule: &'static str, event: ReportEvent) {
        self.count_finding(&key.flow, &event);
        self.report(Some(key.flow), key.session, rule, event);
    }

    /// Counts a verdict. Missing packets and a suspicion are no evidence yet, and evidence of a drop is the second of such verdicts.
    fn count_finding(&mut self, flow: &FlowId, event: &ReportEvent) {
        let test = match event {
            ReportEvent::Evidence(Attack::Injection { test, .. }) => test.to_string(),
            ReportEvent::Evidence(Attack::Overrun) => "overrun".to_owned(),
            ReportEvent::Compared { finding: Finding::Missing { .. }, .. } => Test::T2.to_string(),
            ReportEvent::Compared { finding: Finding::Suspicion { .. }, .. } => Test::T1.to_string(),
            ReportEvent::Compared { finding: Finding::Silence { .. }, .. } => Test::T4.to_string(),
            _ => return,
        };
        let findings = self.counters.findings.entry(test).or_default();
        findings.times = findings.times.saturating_add(1);
        findings.last = format!("{flow}: {event}");
    }

    /// Makes a message ready; reliable and secure like every message of this application.
    pub(crate) fn pack(&mut self, envelope: Envelope, payload: Bytes) -> SendMessage {
        self.handles = self.handles.wrapping_add(1);
        SendMessage {
            nslp_id: self.nslp_id,
            session: envelope.session,
            mri: envelope.mri,
            payload,
            attributes: TransferAttributes::RELIABLE_AND_SECURE,
            handle: MessageHandle(self.handles),
            timeout: Some(envelope.timeout),
            hop_count: envelope.hop_count,
            on_behalf_of: envelope.on_behalf_of,
            path: envelope.path,
            routing: Routing::State,
            carriage: Carriage::Any,
        }
    }

    /// The message is newer than what was known and signed by the flow's source: whoever brought it is the peer upstream
    /// . Before anything is answered.
    pub(crate) fn adopt_peer_of(&mut self, received: &ReceivedMessage) {
        if received.tentative {
            let (session, mri, peer) = (received.session, received.mri.inverted(), received.peer_handle);
            self.push(Output::AdoptPeer { nslp_id: self.nslp_id, session, mri, peer });
        }
    }

    /// Hands a message to GIST.
    pub(crate) fn send(&mut self, envelope: Envelope, payload: Bytes) -> MessageHandle {
        let message = self.pack(envelope, payload);
        let handle = message.handle;
        self.push(Output::Send(message));
        handle
    }

    /// Says how long the session's routing state downstream is wanted.
    pub(crate) fn set_state_lifetime(&mut self, session: SessionId, mri: &Mri, lifetime: Duration) {
        let mri = mri.with_direction(Direction::Downstream);
        self.push(Output::SetStateLifetime { nslp_id: self.nslp_id, session, mri, lifetime });
    }

    /// Has GIST ask with the next message who is next on the path: the application's own refreshes come more often than GIST's, or
    /// have got no answer (X-114, TMP-12).
    pub(crate) fn doubt_peer(&mut self, session: SessionId, mri: &Mri) {
        let mri = mri.with_direction(Direction::Downstream);
        self.push(Output::DoubtPeer { nslp_id: self.nslp_id, session, mri });
    }

    /// Sends a notice towards the sender, unless the peer, or that end of the flow behind it, has had too many.
    ///
    /// `about` is the peer whose message causes it, so that nobody can use up the notices of others.
    pub(crate) fn notify(&mut self, notice: &Notice<'_>, rule: &'static str, now: Instant) {
        let end = match notice.mri.direction() {
            Direction::Downstream => notice.key.flow.source,
            Direction::Upstream => notice.key.flow.destination,
        };
        if !self.may_notify(notice.about, end, now) {
            return;
        }
        let &Notice { key, mri, code, detail, number, about: _ } = notice;
        let notify = Notify { flow: key.flow, class: code.class(), code, detail, number, reporter: self.address, challenge: None };
        match wire::build_notify(&notify) {
            Ok(payload) => {
                let mri = mri.with_direction(Direction::Upstream);
                let envelope = Envelope::own(key.session, mri, ANSWER_TIMEOUT);
                self.send(envelope, payload);
                self.tell(key, rule, ReportEvent::Notifying { code, detail });
            }
            Err(error) => self.tell(key, rule, ReportEvent::NotBuilt { reason: error.to_string() }),
        }
    }

    /// Reports that a message is refused, and says so towards the sender unless it was a notice itself.
    pub(crate) fn refuse(&mut self, key: SessionKey, rule: &'static str, received: &ReceivedMessage, refusal: &Refusal, now: Instant) {
        self.report_refusal(Some(key.flow), rule, received, refusal, now);
        if !is_notice(received) {
            let &Refusal { code, detail, number, .. } = refusal;
            self.notify(&Notice { key, mri: &received.mri, code, detail, number, about: counted_as(received) }, rule, now);
        }
    }

    /// Reports that a message is refused, unless too many of its peer's are.
    pub(crate) fn report_refusal(
        &mut self,
        flow: Option<FlowId>,
        rule: &'static str,
        received: &ReceivedMessage,
        refusal: &Refusal,
        now: Instant,
    ) {
        if self.may_report(received, now) {
            self.report(flow, received.session, rule, ReportEvent::Refused(refusal.clone()));
        }
    }

    /// Whether one more line may be written that a message causes which changes nothing: whoever sends it decides how many there are.
    pub(crate) fn may_report(&mut self, received: &ReceivedMessage, now: Instant) -> bool {
        let may = self.refusals.take(&counted_as(received), now);
        if !may {
            self.counters.refused_silently = self.counters.refused_silently.saturating_add(1);
        }
        may
    }

    /// Whether a notice of somebody else about a flow may be passed on.
    pub(crate) fn may_pass_notice(&mut self, received: &ReceivedMessage, flow: &FlowId, now: Instant) -> bool {
        self.may_notify(counted_as(received), flow.source, now)
    }

    fn may_notify(&mut self, about: Principal, end: IpAddr, now: Instant) -> bool {
        self.notices_about.take_many(about, &end, 1, now) && self.notices.take(&about, now)
    }

    /// Whether a signer of something that stands is believed no more.
    pub(crate) fn distrust(&self, signer: IpAddr, path: &CertificatePath, now: Instant) -> Option<Distrust> {
        let error = self.admission.still_believes(path, self.unix(now)).err()?;
        Some(Distrust { signer, error })
    }

    /// Counts and reports that a session has ended for that.
    pub(crate) fn tell_distrusted(&mut self, key: SessionKey, rule: &'static str, distrust: &Distrust) {
        count(&mut self.counters.distrusted, distrust.error.to_string());
        self.tell(key, rule, distrust.event());
    }

    /// Counts a row that is taken.
    pub(crate) fn took(&mut self, rule: &'static str) {
        count(&mut self.counters.rules, rule);
    }

    /// Counts an event that no row is for.
    pub(crate) fn ignored(&mut self) {
        self.counters.ignored = self.counters.ignored.saturating_add(1);
    }

    /// Refuses loudly what the table has a row for and this version does nothing about.
    pub(crate) fn not_acted_upon(&mut self, key: SessionKey, rule: &'static str, now: Instant) {
        count(&mut self.counters.not_acted_upon, rule);
        if self.loud.take(&rule, now) {
            self.tell(key, rule, ReportEvent::NotActedUpon);
        }
    }

    /// What the messages taken since this was asked last have cost, as [`crate::fair_queue::FairQueue::charge`] counts it for one.
    pub(crate) fn take_cost(&mut self) -> u32 {
        self.admission.take_spent().saturating_mul(SIGNATURE_COST).saturating_add(MESSAGE_COST)
    }

    /// Counts a refused message.
    pub(crate) fn count_refusal(&mut self, code: NotifyCode) {
        count(&mut self.counters.refused, code);
    }
}

/// An end of a flow whose certificate is believed no more.
#[derive(Debug, Clone)]
pub(crate) struct Distrust {
    pub(crate) signer: IpAddr,
    pub(crate) error: CertificateError,
}

impl Distrust {
    pub(crate) fn event(&self) -> ReportEvent {
        ReportEvent::Distrusted { signer: self.signer, error: self.error.clone() }
    }
}

/// A notice to be sent.
#[derive(Debug)]
pub(crate) struct Notice<'a> {
    pub(crate) key: SessionKey,
    pub(crate) mri: &'a Mri,
    pub(crate) code: NotifyCode,
    pub(crate) detail: u16,
    pub(crate) number: u32,
    pub(crate) about: Principal,
}

/// Whom a message counts against: only who is authenticated has a name of its own.
fn counted_as(received: &ReceivedMessage) -> Principal {
    if received.authenticated { received.principal } else { ANYBODY }
}

fn half(Rate { per_second, burst }: Rate) -> Rate {
    Rate { per_second: per_second.div_ceil(2), burst: burst.div_ceil(2) }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, name: K) {
    let count = counts.entry(name).or_default();
    *count = count.saturating_add(1);
}
