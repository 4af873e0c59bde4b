//! Every order in which the steps of handle, thread and kernel can follow upon each other, for a few updates and packets. Handle and thread
//! run the code of [`super`]; each thing that they do to what they share is a [`Step`] ([`explore`](mod@explore)).

mod explore;

use std::sync::mpsc::{TryRecvError, TrySendError};

use self::explore::{Room, Step, Steps, explore};
use super::{Account, Far, Said, Stopped, Thread};

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
        self.take(Step::TakeEvent)
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

/// A thread as it is, then events, and then its end, as whoever started it tells that.
fn thread(live: fn(&mut Model<'_>), events: &[u8]) -> impl Fn(&Steps<'_>) {
    move |steps| {
        live(&mut Model { steps, applied: 0 });
        events.iter().for_each(|event| _ = steps.take(Step::Tell(*event)));
        steps.take(Step::TellEnd);
        steps.take(Step::Notify);
    }
}

/// Sends so many updates, each as soon as it is taken, has the thread stop, and reads until that has ended.
fn handle(count: u8, capacity: usize, events: &[u8], receive: Receive) -> impl Fn(&Steps<'_>) {
    move |steps| {
        let mut account = Account::new(capacity);
        let (mut answered, mut told) = (Vec::new(), Vec::new());
        for number in 0..count {
            while account.send(steps, 1 << number).is_err() {
                match receive(&mut account, steps) {
                    Some(Said::Answer(answer)) => answered.push(answer),
                    Some(Said::Event(event)) => told.push(event),
                    _ => _ = steps.take(Step::AwaitNotice),
                }
            }
        }
        steps.take(Step::AskToStop);
        loop {
            match receive(&mut account, steps) {
                Some(Said::Answer(answer)) => answered.push(answer),
                Some(Said::Stopped(_)) => break,
                Some(Said::Event(event)) => told.push(event),
                None => _ = steps.take(Step::AwaitNotice),
            }
        }
        let sent: Vec<u8> = (0..count).map(|number| 1 << number).collect();
        assert_eq!(answered, sent, "every update is answered, in order, before the end");
        assert_eq!(told, events, "every event is told, once, before the end");
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

/// The last thing that is said before the end.
const LAST: &[u8] = &[7];
const AS_IT_IS: fn(&mut Model<'_>) = |thread| drop(thread.live(&mut ()));
const READ: Receive = |account, steps| account.receive(steps);

/// INV-11, and what the module says of the hand-over.
#[test]
fn whatever_the_order_no_update_is_slept_through_unanswered_or_too_late_for_a_packet() {
    for (updates, capacity, packets) in [(2, 1, 1), (2, 2, 1), (3, 2, 0), (1, 1, 2)] {
        let room = Room { updates: capacity, answers: capacity };
        for events in [&[][..], LAST] {
            let (handle, thread, kernel) = (handle(updates, capacity, events, READ), thread(AS_IT_IS, events), kernel(packets));
            let states = explore(room, packets, [&handle, &thread, &kernel]).unwrap();
            eprintln!("{updates} updates, room for {capacity}, {packets} packets, {} events: {states} states", events.len());
            assert!(states > 1000);
        }
    }
}

/// Runs two updates and one packet with a defect, and gives what is found.
fn found(live: fn(&mut Model<'_>), receive: Receive, room: Room) -> String {
    found_with(&[], live, receive, room)
}

/// The same with events before the end.
fn found_with(events: &[u8], live: fn(&mut Model<'_>), receive: Receive, room: Room) -> String {
    let (handle, thread, kernel) = (handle(2, 2, events, receive), thread(live, events), kernel(1));
    explore(room, 1, [&handle, &thread, &kernel]).unwrap_err()
}

/// The same with room for both and a thread that has the defect.
fn found_in_thread(live: fn(&mut Model<'_>)) -> String {
    found(live, READ, TWO)
}

const TWO: Room = Room { updates: 2, answers: 2 };

#[test]
fn a_wake_that_is_reset_behind_the_look_is_found() {
    let what = found_in_thread(|thread| {
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
    });
    assert!(what.starts_with("nobody can go on"), "{what}");
}

#[test]
fn an_end_that_is_looked_for_behind_the_updates_is_found() {
    let what = found_in_thread(|thread| {
        loop {
            if !thread.apply_updates() || thread.is_asked_to_stop() {
                return;
            }
            if !thread.work(&mut ()).unwrap() {
                thread.sleep().unwrap();
                thread.reset_wake();
            }
        }
    });
    assert!(what.contains("every update is answered"), "{what}");
}

#[test]
fn packets_that_are_judged_without_another_look_at_the_updates_are_found() {
    let what = found_in_thread(|thread| {
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
    });
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
fn an_end_that_is_told_before_the_events_or_read_behind_them_is_found() {
    const BEFORE: Receive = |account, steps| {
        let stopped = steps.stopped();
        if let Some(answer) = steps.take_answer() {
            account.open -= 1;
            return Some(Said::Answer(answer));
        }
        stopped.map(Said::Stopped).or_else(|| steps.take_event().map(Said::Event))
    };
    const BEHIND: Receive = |account, steps| {
        if let Some(event) = steps.take_event() {
            return Some(Said::Event(event));
        }
        let stopped = steps.stopped();
        if let Some(answer) = steps.take_answer() {
            account.open -= 1;
            return Some(Said::Answer(answer));
        }
        stopped.map(Said::Stopped)
    };
    for receive in [BEFORE, BEHIND] {
        let what = found_with(LAST, AS_IT_IS, receive, TWO);
        assert!(what.contains("every event is told"), "{what}");
    }
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
    let (handle, thread, kernel) = (handle(2, 1, &[], READ), thread(silent, &[]), kernel(0));
    let what = explore(Room { updates: 1, answers: 1 }, 0, [&handle, &thread, &kernel]).unwrap_err();
    assert!(what.starts_with("nobody can go on"), "{what}");
}
