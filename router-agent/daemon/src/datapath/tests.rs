use gist::time::Instant;
use pbs_nslp::datapath::{Grant, Protection};
use pbs_nslp::flow::FlowId;
use pbs_nslp::wire::{SharedKey, SymmetricAlgorithm};
use serde_json::{Value, json};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::processor::{PacketId, PacketProcessor, Released, Verdict};
use traffic::queue::{QueueConfig, kernel_statistics};
use traffic::rules::{self, Role, RouterRules};
use traffic::update::{Applied, Refused};
use traffic::verifier::{self, Verifier, VerifierConfig};

use super::*;
use crate::rules::tests::in_a_namespace;
use crate::translate::tests::NoSigner;

const QUEUE: u16 = 7;

/// INV-11, FN-70; what is revoked passes no more when that is answered.
#[test]
fn a_permission_is_answered_for_when_rules_and_worker_both_know_it_and_its_end_when_neither_does() {
    in_a_namespace(|| {
        let install = || RouterRules { shield: true, ..RouterRules::new(1, QUEUE, 30_270) }.install().unwrap();
        install();
        let admitted = Admitted::at_most(Role::Router, 2).unwrap();
        let mut datapath = datapath().admitting(admitted.clone(), true);
        let put_back = || {
            install();
            admitted.refill();
        };
        assert_eq!(datapath.command(Command::Install { token: Token(1), grant: grant(1, 300) }), None);
        assert!(matches!(answer(&mut datapath), Event::Applied { token: Token(1), .. }));
        assert_eq!((admitted.counts(), datapath.is_idle()), ((1, 0), true));
        rules::remove(Role::Router).unwrap();
        datapath.command(Command::Install { token: Token(2), grant: grant(2, 301) });
        is_silent(&mut datapath);
        put_back();
        assert!(matches!(answer(&mut datapath), Event::Applied { token: Token(2), .. }));
        datapath.command(Command::Install { token: Token(3), grant: grant(3, 302) });
        let Event::Failed { token: Token(3), reason } = answer(&mut datapath) else { panic!("there is no room") };
        assert!(reason.contains("2 permissions already"), "{reason}");
        rules::remove(Role::Router).unwrap();
        datapath.command(Command::Remove { token: Token(4), flow: grant(1, 300).flow, spi: 300 });
        is_silent(&mut datapath);
        put_back();
        assert!(matches!(answer(&mut datapath), Event::Applied { token: Token(4), .. }));
        // What the worker refuses the rules are to know no longer, and of what it has they go on to know.
        datapath.command(Command::Install { token: Token(5), grant: grant(4, 301) });
        assert!(matches!(answer(&mut datapath), Event::Failed { token: Token(5), .. }));
        admitted.settled();
        assert_eq!((admitted.counts().0, datapath.is_idle()), (1, true));
        assert_eq!(datapath.counters()["dropped_before_queue"], json!([]));
    });
}

/// INV-11: what a worker refuses and takes when it is asked again, before anybody has heard of the refusal, the rules go on to know.
#[test]
fn a_permission_that_is_refused_and_asked_for_again_at_once_stands_in_the_rules_when_the_worker_has_it() {
    in_a_namespace(|| {
        RouterRules { shield: true, ..RouterRules::new(1, QUEUE, 30_270) }.install().unwrap();
        let admitted = Admitted::at_most(Role::Router, 10).unwrap();
        let mut datapath = datapath().admitting(admitted.clone(), true);
        datapath.command(Command::Install { token: Token(1), grant: grant(1, 300) });
        assert!(matches!(answer(&mut datapath), Event::Applied { token: Token(1), .. }));
        // Under an SPI that another flow has, and once more when that is gone.
        datapath.command(Command::Install { token: Token(2), grant: grant(2, 300) });
        datapath.command(Command::Remove { token: Token(3), flow: grant(1, 300).flow, spi: 300 });
        datapath.command(Command::Install { token: Token(4), grant: grant(2, 300) });
        assert!(matches!(answer(&mut datapath), Event::Failed { token: Token(2), .. }));
        assert!(matches!(answer(&mut datapath), Event::Applied { token: Token(3), .. }));
        assert!(matches!(answer(&mut datapath), Event::Applied { token: Token(4), .. }));
        admitted.settled();
        assert_eq!((admitted.counts().0, datapath.is_idle()), (1, true));
    });
}

/// A worker that has taken all it could be given holds up no message, whatever waits for the rules.
#[test]
fn a_datapath_is_behind_while_its_worker_is_full_and_not_because_the_rules_are_waited_for() {
    in_a_namespace(|| {
        RouterRules { shield: true, ..RouterRules::new(1, QUEUE, 30_270) }.install().unwrap();
        let mut datapath = datapath().admitting(Admitted::at_most(Role::Router, 2).unwrap(), true);
        for _ in 0..300 {
            datapath.command(Command::Snapshot { token: Token(1), flow: grant(1, 300).flow, spi: 300 });
        }
        assert!(datapath.is_behind(), "more than a worker takes");
        rules::remove(Role::Router).unwrap();
        datapath.command(Command::Install { token: Token(2), grant: grant(2, 301) });
        (0..300).for_each(|_| drop(answer(&mut datapath)));
        assert!(!datapath.is_idle() && !datapath.is_behind(), "one waits, for the rules");
    });
}

/// What one has a worker knows and nobody else; a worker that ends takes its queue with it, and leaves the others theirs.
#[test]
fn each_permission_is_one_workers_and_a_worker_that_ends_is_named_and_its_queue_closes() {
    const SPREAD: Spread = Spread::new(3, 7);
    in_a_namespace(|| {
        let lead = |worker: u16| {
            let counters = Arc::new(Counters::default());
            Lead { queue: QueueConfig::new(QUEUE + worker), af_xdp: None, processor: Box::new(Fragile(verifier(&counters))), counters }
        };
        let (leads, wake) = ((0..3).map(lead).collect(), Arc::new(Notify::new()));
        let mut datapath = Datapath::start("data", leads, SPREAD, Clock::start(), &wake, Arc::new(NoSigner)).unwrap();
        for spi in 300..330 {
            datapath.command(Command::Install { token: Token(1), grant: grant(1, spi) });
            answer(&mut datapath);
            datapath.command(Command::Snapshot { token: Token(2), flow: grant(1, spi).flow, spi });
            assert!(matches!(answer(&mut datapath), Event::Applied { token: Token(2), .. }));
            datapath.command(Command::Remove { token: Token(3), flow: grant(1, spi).flow, spi });
            answer(&mut datapath);
        }
        let rows = datapath.counters()["queues"].clone();
        let of = |row: usize, field: &str| rows[row][field].clone();
        assert_eq!([0, 1, 2].map(|row| of(row, "worker")), [json!("data"), json!("data-1"), json!("data-2")]);
        assert_eq!([0, 1, 2].map(|row| of(row, "queue")), [json!(QUEUE), json!(QUEUE + 1), json!(QUEUE + 2)]);
        assert_eq!(of(1, "kernel_drops"), json!({ "queue_full": 0, "socket_full": 0 }));

        let flow = grant(1, 300).flow;
        let spi = (400..500).find(|spi| SPREAD.worker(&flow_of(&grant(1, 300)), *spi) == 1).unwrap();
        datapath.command(Command::Drain { token: Token(4), flow, spi, until: Instant::from_micros(0) });
        let until = std::time::Instant::now() + Duration::from_secs(10);
        let ended = loop {
            if let Err(ended) = datapath.receive() {
                break ended;
            }
            assert!(std::time::Instant::now() < until, "nobody says that the worker has ended");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(ended.to_string(), "packet worker `data-1` ended: panicked: a defect");
        let runs: Vec<(String, bool)> = datapath.threads().collect();
        assert_eq!(runs, [("data".to_owned(), true), ("data-1".to_owned(), false), ("data-2".to_owned(), true)]);
        let stands = [0, 1, 2].map(|worker| kernel_statistics(QUEUE + worker).unwrap().is_some());
        assert_eq!(stands, [true, false, true], "what nobody listens to the kernel drops");
        assert_eq!(datapath.counters()["kernel_drops"]["packets"], Value::Null);
    });
}

/// A verifier with a defect.
struct Fragile(Verifier);

impl PacketProcessor for Fragile {
    fn apply(&mut self, update: Update, now: smoltcp::time::Instant) -> Result<Applied, Refused> {
        assert!(!matches!(update, Update::Drain { .. }), "a defect");
        self.0.apply(update, now)
    }

    fn process<'a>(&'a mut self, id: PacketId, bytes: &[u8], now: smoltcp::time::Instant) -> Verdict<'a> {
        self.0.process(id, bytes, now)
    }

    fn poll_released(&mut self) -> Option<(PacketId, Released)> {
        None
    }

    fn poll_event(&mut self) -> Option<traffic::event::Event> {
        None
    }

    fn handle_timeout(&mut self, now: smoltcp::time::Instant) {
        self.0.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<smoltcp::time::Instant> {
        self.0.poll_timeout()
    }
}

fn verifier(counters: &Arc<Counters>) -> Verifier {
    Verifier::new(VerifierConfig::new(verifier::Role::Router), Arc::new(Strict), counters.clone()).unwrap()
}

fn flow_of(grant: &Grant) -> Flow {
    let install = Command::Install { token: Token(0), grant: grant.clone() };
    let own: Arc<dyn PacketSigner> = Arc::new(NoSigner);
    *translate::update(install, &own).unwrap().association().unwrap().0
}

fn datapath() -> Datapath {
    let counters = Arc::new(Counters::default());
    let lead = Lead { queue: QueueConfig::new(QUEUE), af_xdp: None, processor: Box::new(verifier(&counters)), counters };
    Datapath::start("data", vec![lead], Spread::ALONE, Clock::start(), &Arc::new(Notify::new()), Arc::new(NoSigner)).unwrap()
}

/// Of a flow from the host of this number.
fn grant(host: u8, spi: u32) -> Grant {
    let flow = FlowId::new([192, 0, 2, host].into(), [198, 51, 100, 1].into(), 17, 5000, 9000).unwrap();
    let protection = Protection::Shared {
        algorithm: SymmetricAlgorithm::HmacSha256,
        key: SharedKey::new(SymmetricAlgorithm::HmacSha256, vec![7; 32]).unwrap(),
    };
    Grant { flow, spi, protection, allowed: 1000, counted: 0, highest: 0, expires_at: Instant::from_micros(600_000_000) }
}

fn answer(datapath: &mut Datapath) -> Event {
    let until = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(event) = datapath.receive().unwrap() {
            return event;
        }
        assert!(std::time::Instant::now() < until, "no answer");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_silent(datapath: &mut Datapath) {
    for _ in 0..20 {
        assert_eq!(datapath.receive().unwrap(), None);
        std::thread::sleep(Duration::from_millis(5));
    }
}
