//! Of a book, with a kernel that refuses nothing or all.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn flow(port: u16) -> Flow {
    let [source, destination] = [1, 2].map(|host| IpAddr::from([192, 0, 2, host]));
    Flow { source, destination, protocol: 17, source_port: port, destination_port: 9000 }
}

/// What the kernel has after it has been told everything, as a kernel that refuses nothing.
fn tell_all(book: &mut Book, now: Instant) -> usize {
    let mut transactions = 0;
    while let Some(changes) = book.take_changes(now) {
        assert!(changes.associations.len() <= AT_ONCE);
        book.settle();
        transactions += 1;
    }
    transactions
}

#[test]
fn tables_that_come_and_go_faster_than_the_kernel_is_told_leave_no_more_to_be_told() {
    let now = Instant::now();
    let mut book = Book::new(1000);
    for port in 0..500 {
        book.admit(flow(port), port.into(), now + HOUR, now);
    }
    tell_all(&mut book, now);
    let waiting = book.admit(flow(500), 500, now + HOUR, now);
    for _ in 0..100 {
        book.refill(now);
        book.take_changes(now);
    }
    assert!(book.changed.len() + book.under_way.len() <= 502, "{}", book.changed.len());
    tell_all(&mut book, now);
    assert_eq!((book.outcome(waiting), book.counts().0), (Some(Ok(())), 501));
}

/// errors about what tunnels carry go to their source, which the kernel knows as long as the last of them, and the SPI of each as long
/// as it.
#[test]
fn the_source_of_tunnels_is_known_as_long_as_one_of_them_and_the_spi_of_each_as_long_as_it() {
    let now = Instant::now();
    let mut book = Book::new(1000);
    let tunnel = |host| Flow { protocol: 4, source_port: 0, destination_port: 0, destination: IpAddr::from([192, 0, 2, host]), ..flow(1) };
    let source = Flow { destination: IpAddr::from([0; 4]), ..tunnel(0) };
    book.admit(flow(1), 300, now + HOUR, now);
    assert_eq!(book.take_changes(now).unwrap().flows.get(&source), None);
    book.settle();
    for (host, ends) in [(7, HOUR * 2), (8, HOUR)] {
        book.admit(tunnel(host), u32::from(host), now + ends, now);
        let changes = book.take_changes(now).unwrap();
        assert_eq!(changes.flows[&source].1, Some(now + HOUR * 2));
        book.settle();
    }
    book.forget(tunnel(7), 7, now);
    let changes = book.take_changes(now).unwrap();
    assert_eq!(changes.flows[&source], (Some(now + HOUR * 2), Some(now + HOUR)));
    let under_its_spi = Flow { source_port: 0, destination_port: 7, ..tunnel(7) };
    assert_eq!(changes.flows[&under_its_spi], (Some(now + HOUR * 2), None));
    book.settle();
    book.refill(now);
    assert_eq!(book.take_changes(now).unwrap().flows[&source], (None, Some(now + HOUR)));
    book.settle();
    book.forget(tunnel(8), 8, now);
    assert_eq!(book.take_changes(now).unwrap().flows[&source], (Some(now + HOUR), None));
    book.settle();
    assert_eq!(book.flows.len(), 1);
}

/// a removal that comes while the kernel is told to admit is told too, and not taken for carried out before it is.
#[test]
fn what_is_forgotten_while_it_is_being_told_goes_with_the_next_transaction() {
    let now = Instant::now();
    let association = (flow(1).source, flow(1).destination, 7);
    let mut book = Book::new(1000);
    book.admit(flow(1), 7, now + HOUR, now);
    book.take_changes(now).unwrap();
    let ticket = book.forget(flow(1), 7, now);
    book.settle();
    assert_eq!(book.outcome(ticket), None, "it stands");
    let changes = book.take_changes(now).unwrap();
    assert_eq!(changes.associations[&association], (Some(now + HOUR), None));
    assert_eq!(changes.flows[&flow(1)], (Some(now + HOUR), None));
    book.settle();
    assert_eq!((book.outcome(ticket), book.known.len(), book.flows.len()), (Some(Ok(())), 0, 0));
    // The same with an update that the kernel refuses.
    book.admit(flow(1), 7, now + HOUR, now);
    tell_all(&mut book, now);
    let update = book.admit(flow(1), 7, now + 2 * HOUR, now);
    book.take_changes(now).unwrap();
    let ticket = book.forget(flow(1), 7, now);
    for _ in 0..8 {
        if book.outcome(update).is_some() {
            break;
        }
        book.fail(false, "refused", now);
        book.take_changes(now);
    }
    book.settle();
    assert_eq!((book.outcome(ticket), book.known.len(), book.flows.len()), (Some(Ok(())), 0, 0));
}

#[test]
fn what_comes_while_a_transaction_is_under_way_is_told_together_and_each_ticket_in_its_turn() {
    let now = Instant::now();
    let mut book = Book::new(1000);
    let first = book.admit(flow(1), 300, now + HOUR, now);
    assert!(book.take_changes(now).is_some());
    let later: Vec<u64> = (2..402).map(|port| book.admit(flow(port), 300 + u32::from(port), now + HOUR, now)).collect();
    assert_eq!((book.outcome(first), book.outcome(later[0])), (None, None));
    book.settle();
    assert_eq!((book.outcome(first), book.outcome(later[0])), (Some(Ok(())), None));
    assert_eq!(tell_all(&mut book, now), 400usize.div_ceil(AT_ONCE));
    assert!(later.iter().all(|ticket| book.outcome(*ticket) == Some(Ok(()))));
    assert_eq!((book.counts(), book.is_settled()), ((401, 0), true));
}

#[test]
fn a_permission_that_comes_and_goes_before_it_is_told_costs_nothing_and_leaves_nothing() {
    let now = Instant::now();
    let mut book = Book::new(10);
    book.admit(flow(1), 300, now + HOUR, now);
    let gone = book.forget(flow(1), 300, now);
    let changes = book.take_changes(now).unwrap();
    assert!(changes.associations.values().all(|change| *change == (None, None)), "{changes:?}");
    book.settle();
    assert_eq!((book.outcome(gone), book.counts()), (Some(Ok(())), (0, 0)));
    assert!(book.known.is_empty() && book.flows.is_empty() && book.ends.is_empty());
}

#[test]
fn a_flow_stands_as_long_as_any_of_its_epochs_and_nobody_ends_that_of_another() {
    let now = Instant::now();
    let mut book = Book::new(10);
    book.admit(flow(1), 300, now + HOUR, now);
    book.admit(flow(1), 301, now + HOUR * 2, now);
    tell_all(&mut book, now);
    book.forget(flow(2), 300, now);
    book.admit(flow(2), 301, now + HOUR, now);
    assert_eq!(tell_all(&mut book, now), 0, "it is another flow's");
    book.forget(flow(1), 301, now);
    let changes = book.take_changes(now).unwrap();
    assert_eq!(changes.flows[&flow(1)], (Some(now + HOUR * 2), Some(now + HOUR)));
    book.settle();
    book.forget(flow(1), 300, now);
    let changes = book.take_changes(now).unwrap();
    assert_eq!(changes.flows[&flow(1)], (Some(now + HOUR), None));
    book.settle();
    assert!(book.known.is_empty() && book.flows.is_empty());
}

#[test]
fn one_that_the_kernel_refuses_is_found_among_many_and_only_it_is_refused() {
    let now = Instant::now();
    let mut book = Book::new(10);
    let tickets: Vec<u64> = (0..5).map(|spi| book.admit(flow(1), 300 + spi, now + HOUR, now)).collect();
    while let Some(changes) = book.take_changes(now) {
        if changes.associations.keys().any(|(.., spi)| *spi == 303) {
            assert_ne!(book.fail(false, "no room", now), Next::AfterAWhile);
        } else {
            book.settle();
        }
    }
    let outcomes: Vec<_> = tickets.iter().map(|ticket| book.outcome(*ticket).unwrap().is_ok()).collect();
    assert_eq!((outcomes, book.counts()), (vec![true, true, true, false, true], (4, 1)));
    let again = book.admit(flow(1), 303, now + HOUR, now);
    assert_eq!((tell_all(&mut book, now), book.outcome(again)), (1, Some(Ok(()))));
}

/// INV-11: a permission that lives is missed by nobody before the rules while these are told of it again, and a change that is given up leaves
/// it as it was.
#[test]
fn what_is_given_up_stands_as_before_and_nothing_is_given_up_that_is_told_again() {
    let now = Instant::now();
    let mut book = Book::new(10);
    let association = (flow(1).source, flow(1).destination, 300);
    book.admit(flow(1), 300, now + HOUR, now);
    tell_all(&mut book, now);
    book.refill(now);
    book.take_changes(now).unwrap();
    assert_eq!(book.fail(false, "busy", now), Next::AtOnce);
    tell_all(&mut book, now);
    let refused = |book: &mut Book| loop {
        book.take_changes(now).unwrap();
        if let Next::Without(stands) = book.fail(false, "no room", now) {
            break stands;
        }
    };
    book.admit(flow(1), 300, now + 2 * HOUR, now);
    assert_eq!(refused(&mut book), [(association, Some(now + HOUR))], "prolonged");
    book.admit(flow(2), 301, now + HOUR, now);
    assert_eq!(refused(&mut book), [((flow(2).source, flow(2).destination, 301), None)], "new");
    book.forget(flow(1), 300, now);
    assert_eq!(refused(&mut book), [(association, None)], "to go");
}

#[test]
fn rules_that_are_missing_are_waited_for_but_not_for_ever() {
    let now = Instant::now();
    let mut book = Book::new(10);
    let ticket = book.admit(flow(1), 300, now + HOUR, now);
    let fail = |book: &mut Book, now| {
        book.take_changes(now).unwrap();
        book.fail(true, "no table", now) == Next::AfterAWhile
    };
    assert!(!fail(&mut book, now), "once more with care");
    assert!(fail(&mut book, now));
    assert_eq!(book.outcome(ticket), None);
    assert!(!fail(&mut book, now + PATIENCE));
    assert_eq!(book.outcome(ticket), Some(Err("no table".to_owned())));
    // While they are put back everything is told anew, also what was under way.
    let ticket = book.admit(flow(2), 301, now + HOUR, now);
    book.take_changes(now).unwrap();
    book.refill(now);
    book.settle();
    assert_eq!(book.outcome(ticket), None);
    let changes = book.take_changes(now).unwrap();
    assert_eq!(changes.associations.values().copied().collect::<Vec<_>>(), [(None, Some(now + HOUR))]);
    book.settle();
    assert_eq!((book.outcome(ticket), book.counts()), (Some(Ok(())), (1, 1)));
}

#[test]
fn a_full_book_refuses_until_something_has_ended_and_an_open_node_has_nothing_to_tell() {
    let now = Instant::now();
    let mut book = Book::new(2);
    book.admit(flow(1), 300, now + HOUR, now);
    book.admit(flow(2), 301, now + HOUR * 2, now);
    let refused = book.admit(flow(3), 302, now + HOUR, now);
    tell_all(&mut book, now);
    assert!(matches!(book.outcome(refused), Some(Err(why)) if why.contains("2 permissions")));
    let later = now + HOUR;
    let taken = book.admit(flow(3), 302, later + HOUR, later);
    tell_all(&mut book, later);
    assert_eq!((book.outcome(taken), book.counts().0), (Some(Ok(())), 2));
    let waiting = book.forget(flow(3), 302, later);
    book.open();
    assert_eq!((book.outcome(waiting), book.is_settled()), (Some(Ok(())), true));
    let after = book.admit(flow(4), 303, later + HOUR, later);
    assert_eq!((book.outcome(after), book.counts().0), (Some(Ok(())), 0));
}

#[test]
fn what_has_ended_is_told_to_who_stands_before_the_rules_unless_it_has_come_back_and_again_if_that_fails() {
    let now = Instant::now();
    let association = |port: u16| (flow(port).source, flow(port).destination, u32::from(port));
    let mut book = Book::new(1000);
    for port in 0..3 {
        book.admit(flow(port), port.into(), now + HOUR, now);
    }
    tell_all(&mut book, now);
    let later = now + HOUR;
    book.admit(flow(0), 0, later + HOUR, later);
    assert_eq!(book.take_changes(later).unwrap().ended, [association(1), association(2)]);
    assert_eq!((book.known.len(), book.flows.len()), (1, 1));
    book.fail(false, "no reason", later);
    book.admit(flow(2), 2, later + HOUR, later);
    assert_eq!(book.take_changes(later).unwrap().ended, [association(1)]);
    book.settle();
    book.admit(flow(3), 3, later + HOUR, later);
    assert_eq!(book.take_changes(later).unwrap().ended, []);
}

/// the rules would let it through for as long as it was to last before.
#[test]
fn what_is_cut_short_is_told_to_the_rules_before_it_is_forgotten() {
    let now = Instant::now();
    let association = (flow(1).source, flow(1).destination, 7);
    let mut book = Book::new(1);
    book.admit(flow(1), 7, now + HOUR * 2, now);
    tell_all(&mut book, now);
    book.shorten(flow(1), 7, now + HOUR, now);
    let later = now + HOUR;
    book.admit(flow(2), 8, later + HOUR, later);
    assert_eq!(book.take_changes(later).unwrap().associations[&association], (Some(now + HOUR * 2), None));
    book.settle();
    let taken = book.admit(flow(2), 8, later + HOUR, later);
    tell_all(&mut book, later);
    assert_eq!((book.outcome(taken), book.known.len()), (Some(Ok(())), 1));
}
