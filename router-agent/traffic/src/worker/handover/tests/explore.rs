//! All states of a few programs that share something, entered once each.
//!
//! A program is run again and again: what its steps gave so far is given to it again, and at the first step beyond that it is left. So the
//! next step of each is known for everything that it may have seen, and from each state all of them can be let go on. States are told
//! apart by what is shared and what each program has seen.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

/// What a side does to what all share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    // The handle.
    Offer(u8),
    Wake,
    TakeAnswer,
    TakeEvent,
    ReadStopped,
    AskToStop,
    AwaitNotice,
    // The thread.
    IsAsked,
    TakeUpdate,
    Answer(u8),
    Tell(u8),
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
pub(super) type Outcome = Option<u8>;

/// What all share. Sets of updates are bits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Shared {
    updates: Vec<u8>,
    answers: Vec<u8>,
    events: Vec<u8>,
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
pub(super) struct Room {
    pub(super) updates: usize,
    pub(super) answers: usize,
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
            Step::TakeEvent if self.events.is_empty() => None,
            Step::TakeEvent => Some(self.events.remove(0)),
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
            Step::Tell(event) => {
                self.events.push(event);
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
pub(super) struct Steps<'s> {
    seen: &'s [Outcome],
    at: Cell<usize>,
    next: &'s Cell<Option<Step>>,
}

impl Steps<'_> {
    pub(super) fn take(&self, step: Step) -> Outcome {
        let at = self.at.replace(self.at.get() + 1);
        match self.seen.get(at) {
            Some(outcome) => *outcome,
            None => {
                self.next.set(Some(step));
                resume_unwind(Box::new(Left))
            }
        }
    }

    pub(super) fn is(&self, step: Step) -> bool {
        self.take(step) == Some(1)
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
pub(super) fn explore(room: Room, packets: u8, programs: [&dyn Fn(&Steps<'_>); 3]) -> Result<usize, String> {
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
