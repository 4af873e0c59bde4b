//! The kernel's queue as a model, beside the verdicts that are written for it: whatever is delivered, judged and sent, nothing passes that
//! was not judged to.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::delivery::{Deliveries, Delivery};
use super::message::number_of;
use super::runs::Runs;
use super::verdicts::Verdicts;
use super::{Decision, MANY, MAX_PACKET_LEN};
use crate::netlink::{Errno, Header, Writer, attributes, messages};
use crate::processor::PacketId;

const QUEUE: u16 = 7;

/// What becomes of a packet on its way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrives {
    Well,
    /// By another interface.
    Otherwise,
    /// Its number is given and the packet dropped, as when the socket is full.
    Lost,
    /// It waits, and nobody hears of it.
    InSilence,
    /// It waits, and what is heard of it cannot be read.
    Unreadable,
    /// The same, but for its number.
    Garbled,
}

/// What is said of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    Accepted,
    Marked,
    Dropped,
    /// Before all others of its call, as one that was cut.
    DroppedFirst,
    /// Nothing, ever.
    Held,
    /// Nothing yet: after all others of its call.
    Late,
    /// By itself.
    AcceptedAlone,
    /// By itself, and that cannot be sent: it waits on, and nothing says that it may pass.
    DroppedAloneUnsent,
    AcceptedTwice,
    /// Replaced by more than a verdict can carry: with that verdict goes what was written before it.
    TooLong,
}

impl Judged {
    const fn goes_on(self) -> bool {
        matches!(self, Self::Accepted | Self::Marked | Self::Late | Self::AcceptedAlone | Self::AcceptedTwice)
    }
}

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Well,
    /// Not together; of the single ones every second, neither, or all.
    Singly(bool, bool),
    /// After the link was taken down: what waited is gone.
    LinkDown,
    /// Not before the next call.
    Later,
}

/// One call: what comes with it and what becomes of that.
#[derive(Debug, Clone)]
struct Call {
    packets: Vec<(Arrives, Judged)>,
    /// As many are taken before the first of them is judged.
    ahead: usize,
    /// What becomes of what is written by then, if an update comes between: it is sent before these are judged.
    between: Option<Sent>,
    sent: Sent,
}

impl Call {
    /// All are taken before any is judged, and what is written is sent.
    const fn well(packets: Vec<(Arrives, Judged)>) -> Self {
        Self { packets, ahead: MANY, between: None, sent: Sent::Well }
    }
}

/// The kernel's side.
struct Kernel {
    /// Given last.
    number: u32,
    /// Numbers in their order.
    waiting: Vec<u32>,
    passed: Vec<u32>,
    /// Messages about several packets that let some go on.
    runs: usize,
}

impl Kernel {
    /// A packet comes; what is delivered.
    fn take(&mut self, arrives: Arrives) -> Option<Vec<u8>> {
        self.number = self.number.wrapping_add(1);
        if arrives != Arrives::Lost {
            self.waiting.push(self.number);
        }
        let mut writer = Writer::default();
        writer.message(Header { kind: 0x300, flags: 0, sequence: 0 }, &[2, 0, 0, 7], |writer| match arrives {
            Arrives::Unreadable => writer.put(1, &[1]),
            _ => {
                let [a, b, c, d] = self.number.to_be_bytes();
                writer.put(1, &[a, b, c, d, 8, 0, 2]);
                writer.put_be32(5, if arrives == Arrives::Otherwise { 3 } else { 2 });
                writer.put(10, &[0x45]);
                if arrives == Arrives::Garbled {
                    writer.put(3, &[1]);
                }
            }
        });
        (!matches!(arrives, Arrives::Lost | Arrives::InSilence)).then(|| writer.finish().unwrap())
    }

    fn carry_out(&mut self, octets: &[u8]) {
        for message in messages(octets).map(Result::unwrap) {
            let header = attributes(message.after(4).unwrap()).find(2).unwrap().unwrap();
            let [verdict, number] = [0, 4].map(|at| u32::from_be_bytes(header.value[at..at + 4].try_into().unwrap()));
            let answered: Vec<u32> = match message.kind {
                0x301 => self.waiting.iter().copied().filter(|waiting| *waiting == number).collect(),
                0x303 => self.waiting.iter().copied().take_while(|waiting| waiting.wrapping_sub(number).cast_signed() <= 0).collect(),
                kind => panic!("{kind:x}"),
            };
            self.waiting.retain(|waiting| !answered.contains(waiting));
            if verdict == 1 {
                self.passed.extend(answered);
                self.runs += usize::from(message.kind == 0x303);
            }
        }
    }
}

fn call() -> impl Strategy<Value = Call> {
    let arrives = prop_oneof![
        12 => Just(Arrives::Well), 1 => Just(Arrives::Otherwise), 1 => Just(Arrives::Lost),
        1 => Just(Arrives::InSilence), 1 => Just(Arrives::Unreadable), 1 => Just(Arrives::Garbled)
    ];
    let judged = prop_oneof![
        14 => Just(Judged::Accepted), 1 => Just(Judged::Marked), 1 => Just(Judged::Dropped), 1 => Just(Judged::DroppedFirst),
        1 => Just(Judged::Held), 1 => Just(Judged::Late), 1 => Just(Judged::AcceptedAlone), 1 => Just(Judged::DroppedAloneUnsent),
        1 => Just(Judged::AcceptedTwice), 1 => Just(Judged::TooLong)
    ];
    let sent = || {
        let singly = any::<(bool, bool)>().prop_map(|(odd, even)| Sent::Singly(odd, even));
        prop_oneof![6 => Just(Sent::Well), 1 => singly, 1 => Just(Sent::LinkDown), 1 => Just(Sent::Later)]
    };
    let ahead = prop_oneof![3 => Just(MANY), 1 => 1..20_usize];
    (proptest::collection::vec((arrives, judged), 0..40), ahead, proptest::option::of(sent()), sent())
        .prop_map(|(packets, ahead, between, sent)| Call { packets, ahead, between, sent })
}

/// What comes with one call is delivered, judged and sent.
fn play(kernel: &mut Kernel, verdicts: &mut Verdicts, accepted: &mut BTreeSet<u32>, call: &Call) {
    let take = |(arrives, judged): &(Arrives, Judged)| Some((kernel.take(*arrives)?, *judged));
    let delivered: Vec<(Vec<u8>, Judged)> = call.packets.iter().filter_map(take).collect();
    let mut late = Vec::new();
    let add = |verdicts: &mut Verdicts, id: PacketId, decision: Decision<'_>| verdicts.add(id, decision).unwrap();
    verdicts.begin();
    for delivered in delivered.chunks(call.ahead) {
        let mut together = Vec::new();
        for (octets, judged) in delivered {
            match Deliveries::new(octets, 0).next_shown(|seen| verdicts.see(seen)) {
                Some(Delivery::Packet(packet)) if *judged == Judged::DroppedFirst => add(verdicts, packet.id, Decision::Drop),
                Some(Delivery::Packet(packet)) => together.push((packet.id, *judged)),
                Some(Delivery::Unreadable { id: Some(id) }) => add(verdicts, id, Decision::Drop),
                other => assert_eq!(other, Some(Delivery::Unreadable { id: None })),
            }
        }
        call.between.into_iter().for_each(|sent| send(kernel, verdicts, sent));
        for (id, judged) in together {
            accepted.extend(judged.goes_on().then_some(number_of(id)));
            match judged {
                Judged::Accepted => add(verdicts, id, Decision::Accept),
                Judged::Marked => add(verdicts, id, Decision::AcceptMarked(1)),
                Judged::Dropped => add(verdicts, id, Decision::Drop),
                Judged::AcceptedTwice => {
                    add(verdicts, id, Decision::Accept);
                    add(verdicts, id, Decision::Drop);
                }
                Judged::AcceptedAlone => {
                    let send = |octets: &[u8]| {
                        kernel.carry_out(octets);
                        Ok(())
                    };
                    verdicts.give_alone(id, Decision::Accept, send).unwrap();
                }
                Judged::DroppedAloneUnsent => {
                    let full = verdicts.give_alone(id, Decision::Drop, |_| Err(Errno::ENOBUFS));
                    assert_eq!(full, Err(Errno::ENOBUFS));
                }
                Judged::TooLong => {
                    let payload = vec![0x45; MAX_PACKET_LEN + 1];
                    let too_long = verdicts.add(id, Decision::Replace { payload: &payload, mark: None });
                    assert_eq!(too_long, Err(Errno::EMSGSIZE));
                }
                Judged::Late => late.push(id),
                Judged::DroppedFirst | Judged::Held => {}
            }
        }
    }
    for id in late {
        add(verdicts, id, Decision::Accept);
    }
    send(kernel, verdicts, call.sent);
}

fn send(kernel: &mut Kernel, verdicts: &mut Verdicts, sent: Sent) {
    match sent {
        Sent::Later => return,
        Sent::Well => kernel.carry_out(verdicts.close()),
        Sent::LinkDown => {
            kernel.waiting.clear();
            kernel.carry_out(verdicts.close());
        }
        Sent::Singly(odd, even) => {
            verdicts.close();
            let mut count = 0;
            verdicts.one_by_one(|_, octets| {
                count += 1;
                if if count % 2 == 1 { odd } else { even } {
                    kernel.carry_out(octets);
                }
            });
        }
    }
    verdicts.clear();
}

/// Calls one after the other, and then one with which nothing is wrong; how many messages about several packets that took.
fn plays(first: u32, calls: &[Call]) -> usize {
    let mut kernel = Kernel { number: first.wrapping_sub(1), waiting: Vec::new(), passed: Vec::new(), runs: 0 };
    let mut verdicts = Verdicts::with(QUEUE, Runs::new(first));
    let mut accepted = BTreeSet::new();
    for call in calls {
        play(&mut kernel, &mut verdicts, &mut accepted, call);
        let unjudged: Vec<_> = kernel.passed.iter().filter(|number| !accepted.contains(number)).collect();
        assert!(unjudged.is_empty(), "{unjudged:?} passed after {call:?}");
    }
    let fine = Call::well(vec![(Arrives::Well, Judged::Accepted); 20]);
    // What was to be sent later goes with it.
    play(&mut kernel, &mut verdicts, &mut accepted, &fine);
    let before = kernel.passed.len();
    let runs = kernel.runs;
    play(&mut kernel, &mut verdicts, &mut accepted, &fine);
    assert!(kernel.passed.iter().all(|number| accepted.contains(number)));
    assert_eq!((kernel.passed.len() - before, kernel.runs - runs), (20, 1), "what follows goes on, and together");
    kernel.runs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_comes_and_is_judged_and_sent_nothing_passes_that_was_not_judged_to(
        first in prop_oneof![Just(1_u32), Just(u32::MAX - 20), Just((1 << 31) - 20)],
        calls in proptest::collection::vec(call(), 0..12),
    ) {
        plays(first, &calls);
    }
}

/// Numbers below which something waits that nobody has spoken of.
#[test]
fn what_nobody_has_judged_is_dropped_before_anything_above_it_goes_on_together() {
    use Arrives::{InSilence, Well};
    use Judged::{Accepted, DroppedAloneUnsent, Held};
    let fine = vec![(Well, Accepted); 8];
    for odd in [(InSilence, Accepted), (Well, Held), (Arrives::Unreadable, Accepted), (Well, DroppedAloneUnsent)] {
        let packets = [&fine[..], &[odd], &fine].concat();
        let mut kernel = Kernel { number: 0, waiting: Vec::new(), passed: Vec::new(), runs: 0 };
        let (mut verdicts, mut accepted) = (Verdicts::with(QUEUE, Runs::new(1)), BTreeSet::new());
        for (packets, passed) in [(packets, 16), (fine.clone(), 24)] {
            play(&mut kernel, &mut verdicts, &mut accepted, &Call::well(packets));
            assert_eq!(kernel.passed.len(), passed, "{odd:?}");
            assert!(!kernel.passed.contains(&9), "{odd:?}");
        }
        assert!(kernel.waiting.is_empty(), "{odd:?}");
    }
}

/// Whether its turn has come or not.
#[test]
fn nothing_passes_that_was_to_be_dropped_when_its_verdict_is_lost_with_one_that_is_too_long() {
    use Judged::{Accepted, Dropped, Held, TooLong};
    for (judged, passed) in [(&[Dropped, Accepted, Accepted, Held, TooLong][..], [2, 3]), (&[Dropped, TooLong, Accepted, Accepted], [3, 4])]
    {
        let mut kernel = Kernel { number: 0, waiting: Vec::new(), passed: Vec::new(), runs: 0 };
        let (mut verdicts, mut accepted) = (Verdicts::with(QUEUE, Runs::new(1)), BTreeSet::new());
        let packets = judged.iter().map(|judged| (Arrives::Well, *judged)).collect();
        play(&mut kernel, &mut verdicts, &mut accepted, &Call::well(packets));
        assert_eq!(kernel.passed, passed, "{judged:?}");
    }
}

/// A packet is dropped as soon as it is seen, since it was cut; that cannot be sent, and then everything can again.
#[test]
fn what_is_answered_ahead_of_its_turn_does_not_pass_with_others_when_that_cannot_be_sent() {
    use Arrives::{Otherwise, Well};
    use Judged::{Accepted, DroppedFirst};
    let packets = [&[(Well, Accepted); 4][..], &[(Otherwise, Accepted); 4], &[(Well, DroppedFirst)], &[(Well, Accepted); 8]].concat();
    let mut kernel = Kernel { number: 0, waiting: Vec::new(), passed: Vec::new(), runs: 0 };
    let (mut verdicts, mut accepted) = (Verdicts::with(QUEUE, Runs::new(1)), BTreeSet::new());
    let call = Call { between: Some(Sent::Singly(false, false)), ..Call::well(packets) };
    play(&mut kernel, &mut verdicts, &mut accepted, &call);
    assert_eq!((kernel.passed.len(), &*kernel.waiting), (16, &[9][..]));
    play(&mut kernel, &mut verdicts, &mut accepted, &Call::well(vec![(Well, Accepted); 8]));
    assert_eq!((kernel.passed.len(), kernel.passed.contains(&9), kernel.waiting.len()), (24, false, 0));
}

/// A number that comes again is none of the kernel that this is written for.
#[test]
fn a_number_that_goes_back_ends_it() {
    let mut verdicts = Verdicts::with(QUEUE, Runs::new(1));
    let mut kernel = Kernel { number: 0, waiting: Vec::new(), passed: Vec::new(), runs: 0 };
    let mut accepted = BTreeSet::new();
    let fine = Call::well(vec![(Arrives::Well, Judged::Accepted); 8]);
    play(&mut kernel, &mut verdicts, &mut accepted, &fine);
    assert_eq!(kernel.runs, 1);
    kernel.number = 3;
    for _ in 0..3 {
        play(&mut kernel, &mut verdicts, &mut accepted, &fine);
    }
    assert_eq!((kernel.runs, kernel.passed.len()), (1, 32));
}

/// The same for a verdict that is refused for another reason than that nothing waits.
#[test]
fn a_verdict_that_is_refused_for_another_reason_ends_it() {
    const FAILED: u16 = 2;
    for (errno, runs) in [(-2_i32, 2), (-1, 1)] {
        let mut verdicts = Verdicts::with(QUEUE, Runs::new(1));
        let mut kernel = Kernel { number: 0, waiting: Vec::new(), passed: Vec::new(), runs: 0 };
        let mut accepted = BTreeSet::new();
        let fine = Call::well(vec![(Arrives::Well, Judged::Accepted); 8]);
        play(&mut kernel, &mut verdicts, &mut accepted, &fine);
        let mut writer = Writer::default();
        writer.message(Header { kind: FAILED, flags: 0, sequence: 3 }, &[errno.to_ne_bytes(), [0; 4]].concat(), |_| {});
        let octets = writer.finish().unwrap();
        let refused = Delivery::Refused { id: PacketId(3), errno: Errno::from_raw(-errno) };
        assert_eq!(Deliveries::new(&octets, 0).next_shown(|seen| verdicts.see(seen)), Some(refused));
        play(&mut kernel, &mut verdicts, &mut accepted, &fine);
        assert_eq!((kernel.runs, kernel.passed.len()), (runs, 16), "{errno}");
    }
}
