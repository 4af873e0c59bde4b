//! Every order in which the steps of handle, thread and kernel can follow upon each other, for a few updates and packets.
//!
//! Handle and thread run the code of [`super`]; each thing that they do to what they share is a [`Step`]. A program is run again and again:
//! what its steps gave so far is given to it again, and at the first step beyond that it is left. So the next step of either side is known
//! for everything that it may have seen, and from each state all sides can be let go on. States are told apart by what is shared and what
//! each side has seen; each is entered once.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::mpsc::{TryRecvError, TrySendError};

use super::{Account, Far, Said, Stopped, Thread};

/// What a side does to what all share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    // The handle.
    Offer(u8),
    Wake,
    TakeAnswer,
    ReadStopped,
    AskToStop,
    AwaitNotice,
    // The thread.
    IsAsked,
    TakeUpdate,
    Answer(u8),
    Notify,
    TakePacket,
    /// With the updates that have been carried out.
    Judge(u8),
    Sleep,
    ResetWake,
    TellEnd,
    // The kernel.
    Arrive,
}

/// What a step gives: a number, or nothing.
type Outcome = Option<u8>;

/// What all share. Sets of updates are bits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Shared {
    updates: Vec<u8>,
    answers: Vec<u8>,
    waiting: u8,
    woken: bool,
    asked: bool,
    noticed: bool,
    ended: bool,
    offered: u8,
    /// Those whose answers have been read.
    read: u8,
    /// Those that count for the packet that was taken last.
    due: u8,
    judged: u8,
}

/// Where there are more, some side goes on for ever.
const MOST_STATES: usize = 500_000;

/// Room for updates, and for answers.
#[derive(Clone, Copy)]
struct Room {
    updates: usize,
    answers: usize,
}

impl Shared {
    /// Takes the step, if it can be taken now; an error says what must never happen.
    fn take(&mut self, step: Step, room: Room) -> Result<Option<Outcome>, String> {
        let yes = |condition: bool| Some(u8::from(condition));
        Ok(Some(match step {
            Step::Offer(_) if self.updates.len() >= room.updates => yes(false),
            Step::Offer(update) => {
                self.updates.push(update);
                self.offered |= update;
                yes(true)
            }
            Step::Wake => {
                self.woken = true;
                None
            }
            Step::TakeAnswer if self.answers.is_empty() => None,
            Step::TakeAnswer => {
                let answer = self.answers.remove(0);
                self.read |= answer;
                Some(answer)
            }
            Step::ReadStopped => yes(self.ended),
            Step::AskToStop => {
                (self.asked, self.woken) = (true, true);
                None
            }
            Step::AwaitNotice if !self.noticed => return Ok(None),
            Step::AwaitNotice => {
                self.noticed = false;
                None
            }
            Step::IsAsked => yes(self.asked),
            Step::TakeUpdate if self.updates.is_empty() => None,
            Step::TakeUpdate => Some(self.updates.remove(0)),
            Step::Answer(_) if self.answers.len() >= room.answers => return Err("there is no room for an answer".to_owned()),
            Step::Answer(answer) => {
                self.answers.push(answer);
                None
            }
            Step::Notify => {
                self.noticed = true;
                None
            }
            Step::TakePacket if self.waiting == 0 => yes(false),
            Step::TakePacket => {
                self.waiting -= 1;
                self.due = self.offered;
                yes(true)
            }
            Step::Judge(applied) if self.due & !applied != 0 || self.read & !applied != 0 => {
                return Err(format!("judged by {applied:b}, sent before {:b}, answered {:b}", self.due, self.read));
            }
            Step::Judge(_) => {
                self.judged += 1;
                None
            }
            Step::Sleep if !self.woken && self.waiting == 0 => return Ok(None),
            Step::Sleep => None,
            Step::ResetWake => {
                self.woken = false;
                None
            }
            Step::TellEnd => {
                self.ended = true;
                None
            }
            Step::Arrive => {
                self.waiting += 1;
                None
            }
        }))
    }
}

/// Left by a program at a step whose outcome is not known yet.
struct Left;

/// Gives a program what its steps gave, as far as that is known.
struct Steps<'s> {
    seen: &'s [Outcome],
    at: Cell<usize>,
    next: &'s Cell<Option<Step>>,
}

impl Steps<'_> {
    fn take(&self, step: Step) -> Outcome {
        let at = self.at.replace(self.at.get() + 1);
        match self.seen.get(at) {
            Some(outcome) => *outcome,
            None => {
                self.next.set(Some(step));
                resume_unwind(Box::new(Left))
            }
        }
    }

    fn is(&self, step: Step) -> bool {
        self.take(step) == Some(1)
    }
}

impl Far for Steps<'_> {
    type Update = u8;
    type Answer = u8;
    type Event = u8;

    fn stopped(&self) -> Option<Stopped> {
        self.is(Step::ReadStopped).then_some(Stopped::Asked)
    }

    fn offer(&self, update: u8) -> Result<(), TrySendError<u8>> {
        if self.is(Step::Offer(update)) { Ok(()) } else { Err(TrySendError::Full(update)) }
    }

    fn wake(&self) {
        self.take(Step::Wake);
    }

    fn take_answer(&self) -> Option<u8> {
        self.take(Step::TakeAnswer)
    }

    fn take_event(&self) -> Option<u8> {
        None
    }
}

/// A thread whose processor remembers which updates it has carried out.
struct Model<'s> {
    steps: &'s Steps<'s>,
    applied: u8,
}

impl Thread for Model<'_> {
    type Update = u8;
    type Answer = u8;
    type Buffer = ();

    fn is_asked_to_stop(&self) -> bool {
        self.steps.is(Step::IsAsked)
    }

    fn take_update(&mut self) -> Result<u8, TryRecvError> {
        self.steps.take(Step::TakeUpdate).ok_or(TryRecvError::Empty)
    }

    fn carry_out(&mut self, update: u8) -> u8 {
        self.applied |= update;
        update
    }

    fn answer(&mut self, answer: u8) {
        self.steps.take(Step::Answer(answer));
    }

    fn notify(&self) {
        self.steps.take(Step::Notify);
    }

    fn work(&mut self, (): &mut ()) -> Result<bool, Stopped> {
        let came = self.steps.is(Step::TakePacket);
        if came {
            self.judge_with(|this| this.steps.take(Step::Judge(this.applied)));
        }
        Ok(came)
    }

    fn sleep(&mut self) -> Result<(), Stopped> {
        self.steps.take(Step::Sleep);
        Ok(())
    }

    fn reset_wake(&mut self) {
        self.steps.take(Step::ResetWake);
    }
}

/// A thread as it is, and then its end, as whoever started it tells that.
fn thread(live: fn(&mut Model<'_>)) -> impl Fn(&Steps<'_>) {
    move |steps| {
        live(&mut Model { steps, applied: 0 });
        steps.take(Step::TellEnd);
        steps.take(Step::Notify);
    }
}

/// Sends so many updates, each as soon as it is taken, has the thread stop, and reads until that has ended.
fn handle(count: u8, capacity: usize, receive: Receive) -> impl Fn(&Steps<'_>) {
    move |steps| {
        let mut account = Account::new(capacity);
        let mut answered = Vec::new();
        for number in 0..count {
            while account.send(steps, 1 << number).is_err() {
                match receive(&mut account, steps) {
                    Some(Said::Answer(answer)) => answered.push(answer),
                    _ => _ = steps.take(Step::AwaitNotice),
                }
            }
        }
        steps.take(Step::AskToStop);
        loop {
            match receive(&mut account, steps) {
                Some(Said::Answer(answer)) => answered.push(answer),
                Some(Said::Stopped(_)) => break,
                Some(Said::Event(_)) => {}
                None => _ = steps.take(Step::AwaitNotice),
            }
        }
        let sent: Vec<u8> = (0..count).map(|number| 1 << number).collect();
        assert_eq!(answered, sent, "every update is answered, in order, before the end");
    }
}

type Receive = for<'a, 's> fn(&'a mut Account, &'a Steps<'s>) -> Option<Said<Steps<'s>>>;

fn kernel(packets: u8) -> impl Fn(&Steps<'_>) {
    move |steps| {
        for _ in 0..packets {
            steps.take(Step::Arrive);
        }
    }
}

/// What a program has seen of its steps, and what it does then: a step, or its end, or it fails.
type Known = (Rc<[Outcome]>, Result<Option<Step>, String>);

/// One side: its program, and what its next step is after what it has seen.
struct Side<'p> {
    program: &'p dyn Fn(&Steps<'_>),
    /// By number.
    known: RefCell<Vec<Known>>,
    /// The number of what it has seen when one more step has given something.
    after: RefCell<HashMap<(usize, Outcome), usize>>,
}

impl<'p> Side<'p> {
    fn new(program: &'p dyn Fn(&Steps<'_>)) -> Self {
        let side = Self { program, known: RefCell::default(), after: RefCell::default() };
        side.learn(Vec::new());
        side
    }

    /// Runs the program as far as it is known what its steps give.
    fn learn(&self, seen: Vec<Outcome>) -> usize {
        let next = Cell::new(None);
        let steps = Steps { seen: &seen, at: Cell::new(0), next: &next };
        let step = match catch_unwind(AssertUnwindSafe(|| (self.program)(&steps))) {
            Ok(()) => Ok(None),
            Err(left) if left.is::<Left>() => Ok(next.get()),
            Err(panic) => Err(crate::worker::panic_words(panic.as_ref())),
        };
        let mut known = self.known.borrow_mut();
        known.push((seen.into(), step));
        known.len() - 1
    }

    fn next(&self, state: usize) -> Result<Option<Step>, String> {
        self.known.borrow()[state].1.clone()
    }

    fn after(&self, state: usize, outcome: Outcome) -> usize {
        let known = self.after.borrow().get(&(state, outcome)).copied();
        known.unwrap_or_else(|| {
            let seen = [&*Rc::clone(&self.known.borrow()[state].0), &[outcome]].concat();
            let next = self.learn(seen);
            self.after.borrow_mut().insert((state, outcome), next);
            next
        })
    }
}

/// Goes through all states and gives how many there are, or what is wrong with one of them and how it was reached.
fn explore(room: Room, packets: u8, programs: [&dyn Fn(&Steps<'_>); 3]) -> Result<usize, String> {
    type State = (Shared, [usize; 3]);
    let sides = programs.map(Side::new);
    let mut entered: HashSet<State> = HashSet::new();
    let mut from: Vec<(usize, Step)> = Vec::new();
    let mut left: Vec<(State, usize)> = vec![((Shared::default(), [0; 3]), 0)];
    let told = |from: &[(usize, Step)], mut at: usize, what: String| {
        let mut steps = Vec::new();
        while at > 0 {
            steps.push(format!("{:?}", from[at - 1].1));
            at = from[at - 1].0;
        }
        steps.reverse();
        format!("{what}: {}", steps.join(", "))
    };
    while let Some(((shared, at), way)) = left.pop() {
        if !entered.insert((shared.clone(), at)) {
            continue;
        }
        if entered.len() > MOST_STATES {
            return Err(told(&from, way, "no end of it".to_owned()));
        }
        let mut stuck = true;
        let mut done = true;
        for (number, side) in sides.iter().enumerate() {
            let Some(step) = side.next(at[number]).map_err(|failed| told(&from, way, failed))? else { continue };
            done = false;
            let mut next = shared.clone();
            let taken = next.take(step, room).map_err(|wrong| told(&from, way, format!("{wrong} at {step:?}")))?;
            let Some(outcome) = taken else { continue };
            stuck = false;
            let mut places = at;
            places[number] = side.after(at[number], outcome);
            from.push((way, step));
            left.push(((next, places), from.len()));
        }
        if stuck && !done {
            return Err(told(&from, way, format!("nobody can go on, {shared:?}")));
        }
        if done && shared.judged + shared.waiting != packets {
            return Err(told(&from, way, "a packet is lost".to_owned()));
        }
    }
    Ok(entered.len())
}

const AS_IT_IS: fn(&mut Model<'_>) = |thread| drop(thread.live(&mut ()));
const READ: Receive = |account, steps| account.receive(steps);

/// INV-11, and what the module says of the hand-over.
#[test]
fn whatever_the_order_no_update_is_slept_through_unanswered_or_too_late_for_a_packet() {
    for (updates, capacity, packets) in [(2, 1, 1), (2, 2, 1), (3, 2, 0), (1, 1, 2)] {
        let room = Room { updates: capacity, answers: capacity };
        let (handle, thread, kernel) = (handle(updates, capacity, READ), thread(AS_IT_IS), kernel(packets));
        let states = explore(room, packets, [&handle, &thread, &kernel]).unwrap();
        eprintln!("{updates} updates, room for {capacity}, {packets} packets: {states} states");
        assert!(states > 1000);
    }
}

/// Runs two updates and one packet with a defect, and gives what is found.
fn found(live: fn(&mut Model<'_>), receive: Receive, room: Room) -> String {
    let (handle, thread, kernel) = (handle(2, 2, receive), thread(live), kernel(1));
    explore(room, 1, [&handle, &thread, &kernel]).unwrap_err()
}

const TWO: Room = Room { updates: 2, answers: 2 };

#[test]
fn a_wake_that_is_reset_behind_the_look_is_found() {
    let what = found(
        |thread| {
            loop {
                let asked = thread.is_asked_to_stop();
                if !thread.apply_updates() || asked {
                    return;
                }
                thread.reset_wake();
                if !thread.work(&mut ()).unwrap() {
                    thread.sleep().unwrap();
                }
            }
        },
        READ,
        TWO,
    );
    assert!(what.starts_with("nobody can go on"), "{what}");
}

#[test]
fn an_end_that_is_looked_for_behind_the_updates_is_found() {
    let what = found(
        |thread| {
            loop {
                if !thread.apply_updates() || thread.is_asked_to_stop() {
                    return;
                }
                if !thread.work(&mut ()).unwrap() {
                    thread.sleep().unwrap();
                    thread.reset_wake();
                }
            }
        },
        READ,
        TWO,
    );
    assert!(what.contains("every update is answered"), "{what}");
}

#[test]
fn packets_that_are_judged_without_another_look_at_the_updates_are_found() {
    let what = found(
        |thread| {
            loop {
                let asked = thread.is_asked_to_stop();
                if !thread.apply_updates() || asked {
                    return;
                }
                if thread.steps.is(Step::TakePacket) {
                    thread.steps.take(Step::Judge(thread.applied));
                } else {
                    thread.sleep().unwrap();
                    thread.reset_wake();
                }
            }
        },
        READ,
        TWO,
    );
    assert!(what.starts_with("judged by"), "{what}");
}

#[test]
fn an_end_that_is_read_behind_the_answers_is_found() {
    let what = found(
        AS_IT_IS,
        |account, steps| {
            if let Some(answer) = steps.take_answer() {
                account.open -= 1;
                return Some(Said::Answer(answer));
            }
            steps.stopped().map(Said::Stopped)
        },
        TWO,
    );
    assert!(what.contains("every update is answered"), "{what}");
}

#[test]
fn answers_without_room_and_a_thread_that_tells_nobody_are_found() {
    let what = found(AS_IT_IS, READ, Room { updates: 2, answers: 1 });
    assert!(what.starts_with("there is no room for an answer"), "{what}");
    let silent = |thread: &mut Model<'_>| {
        loop {
            let asked = thread.is_asked_to_stop();
            while let Ok(update) = thread.take_update() {
                thread.answer(update);
            }
            if asked {
                return;
            }
            thread.sleep().unwrap();
            thread.reset_wake();
        }
    };
    let (handle, thread, kernel) = (handle(2, 1, READ), thread(silent), kernel(0));
    let what = explore(Room { updates: 1, answers: 1 }, 0, [&handle, &thread, &kernel]).unwrap_err();
    assert!(what.starts_with("nobody can go on"), "{what}");
}
