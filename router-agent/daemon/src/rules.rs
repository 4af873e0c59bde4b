//! A daemon's filter rules while it runs: put in place, watched over by a thread of their own, taken away only when somebody
//! asks for it.
//!
//! `nft flush ruleset`, or any other program that lays hands on the table, would open a node for good. The kernel takes no change of the
//! table from anybody else while this daemon runs ([`traffic::rules::Owner`]). Where it cannot do that (before Linux 6.9) the watch puts
//! the whole table back at once, always: between a node that is open and a processor that is busy with a program that removes the table
//! again and again, the busy processor is the lesser harm. Only the log is limited, to one line a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use traffic::netlink::NetlinkError;
use traffic::rules::{Admitted, Author, Family, Install, Installed, Memory, Role, RuleCounter, Watch};

use crate::threads::Threads;

/// Takes away what a daemon has set up in the kernel besides its filter rules.
pub type Undo = Box<dyn Fn() -> Result<(), NetlinkError> + Send + Sync>;

/// How often what stands is compared with what should, in case nobody has told of a change.
const COMPARE: Duration = Duration::from_secs(2);
/// How long the watch waits after it could not put the rules back.
const RETRY: Duration = Duration::from_millis(100);
/// At most one line is logged in this time.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Why the rules could not be set or watched over.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The kernel refused it.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// No thread for it.
    #[error("cannot start the thread that watches over the filter rules: {0}")]
    Thread(std::io::Error),
}

/// The rules of a running daemon.
pub struct Rules {
    role: Role,
    undo: Undo,
    state: Arc<Mutex<State>>,
    admitted: Admitted,
}

/// What the watch and the daemon both know. Whoever changes the rules holds it meanwhile.
#[derive(Debug, Default)]
struct State {
    opened: bool,
    restored: u64,
    failed: u64,
    last_changed_by: Option<String>,
}

impl Rules {
    /// Puts the rules in place, in the network namespace of the calling thread, and watches over them from then on.
    /// `permissions` are the most that it will tell them of.
    pub fn start(role: Role, install: Install, undo: Undo, permissions: usize, threads: &Threads) -> Result<Self, RulesError> {
        let admitted = Admitted::at_most(role, permissions)?;
        // What a former daemon has left is gone with its table.
        let watch = Watch::start_through(role, install, admitted.owner().clone())?;
        if !traffic::rules::held(role)? {
            tracing::warn!(
                "this kernel (before Linux 6.9) lets other programs change the filter rules: they are put back, but for milliseconds packets pass"
            );
        }
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, refilled) = (Arc::clone(&state), admitted.clone());
        threads.spawn("rules", move || watch_over(watch, &shared, &refilled).to_string()).map_err(RulesError::Thread)?;
        Ok(Self { role, undo, state, admitted })
    }

    /// Takes the rules away, and whatever else the daemon has set up: from here on traffic passes unverified, and nobody
    /// watches any more. Answers what of the rest could not be undone: whoever wants to open is not kept from it.
    pub fn open(&self) -> Result<Option<NetlinkError>, NetlinkError> {
        let mut state = lock(&self.state);
        let failed = (self.undo)().err();
        self.admitted.owner().remove(self.role)?;
        state.opened = true;
        self.admitted.open_up();
        tracing::warn!("opened by request: the filter rules are gone, traffic passes unverified until this daemon starts again");
        if let Some(error) = &failed {
            tracing::error!(%error, "not everything else could be undone");
        }
        Ok(failed)
    }

    /// Whether somebody has asked to open.
    pub fn is_opened(&self) -> bool {
        lock(&self.state).opened
    }

    /// The permissions that the rules know.
    pub fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// For `status`, over both IP versions, each number null if it cannot be read: what became of fragments that arrived (X-87), and what
    /// a router has passed unjudged by interfaces that it observes (X-104).
    pub fn packets(&self) -> Vec<(&'static str, Value)> {
        const OF_PERMISSIONS: &str = "fragments-permission-";
        let is_of_others = |chain: &str| chain.starts_with("fragments-") && !chain.starts_with(OF_PERMISSIONS);
        let (known, not_made_known) = self.admitted.counts();
        let counted = traffic::rules::counters(self.role).ok();
        let packets = |of: &dyn Fn(&str, &str) -> bool| {
            let of_rule = |counter: &&RuleCounter| of(&counter.chain, &counter.rule);
            counted.as_ref().map(|all| all.iter().filter(of_rule).map(|counter| counter.packets).sum::<u64>())
        };
        let named = |name| packets(&move |chain: &str, rule: &str| chain.starts_with("fragments") && rule == name);
        let fragments = json!({
            "permissions_known": known,
            "permissions_not_made_known": not_made_known,
            "memory": { "ipv4": memory(Family::Ipv4), "ipv6": memory(Family::Ipv6) },
            "of_permissions": packets(&|chain, rule| chain.starts_with(OF_PERMISSIONS) && rule == "within the bucket"),
            "others": packets(&|chain, rule| (chain, rule) == ("fragments-node", "within the bucket")),
            "not_made_whole": named("not made whole"),
            "dropped": { "not_wanted": named("fragments"), "too_short": named("too short"),
                "unknown_spi": named("unknown_spi"),
                "too_many": packets(&|chain, rule| is_of_others(chain) && rule == "above the bucket"),
                "too_many_of_permissions": packets(&|chain, rule| chain.starts_with(OF_PERMISSIONS) && rule == "above the bucket"),
            },
        });
        let unjudged = || packets(&|_, rule| rule == "passed unjudged").into();
        let observed = (self.role == Role::Router).then(|| ("passed_unjudged", unjudged()));
        [("fragments", fragments)].into_iter().chain(observed).collect()
    }

    /// For `counters`: what came to each filter rule, or null and why that is not known. Rules named "above the bucket" drop, like
    /// "not exempt" and "closed"; which interface a packet came by they do not tell.
    pub fn counters(&self) -> Map<String, Value> {
        shown(traffic::rules::counters(self.role))
    }

    /// For `status`: whether the rules stand in both families, and whether nobody else can change them, or why neither is known; whether
    /// somebody has asked to open, how often they were put back and how often that failed, and who made it necessary last.
    pub fn show(&self) -> Value {
        let (stand, held, not_known_because) = known(traffic::rules::standing(self.role));
        let state = lock(&self.state);
        json!({
            "stand": stand,
            "held": held,
            "not_known_because": not_known_because,
            "opened": state.opened,
            "restored": state.restored,
            "failed": state.failed,
            "last_changed_by": state.last_changed_by,
        })
    }
}

/// Whether rules stand in both families, whether they are held, and why neither is known.
fn known(standing: Result<(Installed, bool), NetlinkError>) -> (Option<bool>, Option<bool>, Option<String>) {
    match standing {
        Ok((installed, held)) => (Some(installed.ipv4 && installed.ipv6), Some(held), None),
        Err(error) => (None, None, Some(error.to_string())),
    }
}

/// What the kernel gives to datagrams of one IP version that are not whole yet, or null.
fn memory(family: Family) -> Value {
    Memory::read(family).map_or(Value::Null, |Memory { octets, wait }| json!({ "octets": octets, "wait_seconds": wait }))
}

fn shown(counters: Result<Vec<RuleCounter>, NetlinkError>) -> Map<String, Value> {
    let row = |counter: &RuleCounter| {
        json!({
            "family": counter.family.to_string(),
            "chain": counter.chain,
            "rule": counter.rule,
            "packets": counter.packets,
            "bytes": counter.bytes,
        })
    };
    let fields = match counters {
        Ok(counters) => vec![("rules".to_owned(), counters.iter().map(row).collect())],
        Err(error) => vec![("rules".to_owned(), Value::Null), ("rules_not_known_because".to_owned(), error.to_string().into())],
    };
    fields.into_iter().collect()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches until the socket fails; answers why. Once somebody has opened there is nothing to watch.
fn watch_over(mut watch: Watch, shared: &Mutex<State>, admitted: &Admitted) -> NetlinkError {
    let mut log = Log::default();
    let mut compared = Instant::now();
    loop {
        let heard = match watch.wait(COMPARE.saturating_sub(compared.elapsed())) {
            Ok(heard) => heard,
            Err(error) => return error,
        };
        // Held until the rules stand: whoever opens waits for it, and finds the watch at rest afterwards.
        let mut state = lock(shared);
        let heard = if heard { watch.is_disturbed() } else { Ok(false) };
        let disturbed = heard.and_then(|disturbed| {
            if disturbed || compared.elapsed() < COMPARE {
                return Ok(disturbed);
            }
            compared = Instant::now();
            watch.is_intact().map(|intact| !intact)
        });
        let failed = match disturbed {
            Err(error @ NetlinkError::Receive(_)) => return error,
            _ if state.opened => break,
            Ok(false) => continue,
            Ok(true) => match watch.restore() {
                Ok(author) => {
                    admitted.refill();
                    state.restored = state.restored.saturating_add(1);
                    state.last_changed_by = Some(author.to_string());
                    log.restored(&author, state.restored);
                    continue;
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        state.failed = state.failed.saturating_add(1);
        drop(state);
        log.failed(&failed);
        std::thread::sleep(RETRY);
    }
    loop {
        std::thread::park();
    }
}

/// When something was logged last.
#[derive(Debug, Default)]
struct Log {
    last: Option<Instant>,
}

impl Log {
    fn restored(&mut self, author: &Author, times: u64) {
        if self.may() {
            tracing::error!(by = %author, times, "somebody else changed or removed the filter rules; they have been put back");
        }
    }

    fn failed(&mut self, error: &NetlinkError) {
        if self.may() {
            tracing::error!(%error, "the filter rules were changed or removed and CANNOT be put back: traffic may pass unverified");
        }
    }

    fn may(&mut self) -> bool {
        let may = self.last.is_none_or(|last| last.elapsed() >= LOG_EVERY);
        if may {
            self.last = Some(Instant::now());
        }
        may
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use nix::sched::{CloneFlags, unshare};
    use traffic::rules::HostRules;

    use super::*;

    #[test]
    fn counters_that_cannot_be_read_are_null_and_say_why() {
        let unread = shown(Err(NetlinkError::NoAnswer("list the rules".into())));
        assert!(unread["rules"].is_null() && unread["rules_not_known_because"].as_str().unwrap().contains("list the rules"));
        let counter = RuleCounter { family: traffic::rules::Family::Ipv6, chain: "c".into(), rule: "r".into(), packets: 2, bytes: 100 };
        let expected = json!({ "rules": [{ "family": "ip6", "chain": "c", "rule": "r", "packets": 2, "bytes": 100 }] });
        assert_eq!(Value::Object(shown(Ok(vec![counter]))), expected);
    }

    #[test]
    fn whether_rules_stand_and_are_held_is_null_where_the_kernel_does_not_say() {
        let (stand, held, why) = known(Err(NetlinkError::NoAnswer("list the tables".into())));
        assert_eq!((stand, held), (None, None));
        assert!(why.unwrap().contains("list the tables"));
        assert_eq!(known(Ok((Installed { ipv4: true, ipv6: false }, true))), (Some(false), Some(true), None));
    }

    #[test]
    fn what_cannot_be_undone_keeps_nobody_from_opening_and_is_told() {
        in_a_namespace(|| {
            let (threads, _ended) = Threads::new();
            let install: Install = Box::new(|socket| HostRules::new(3, 4, 30_270).install_through(socket));
            let undo: Undo = Box::new(|| Err(NetlinkError::NoAnswer("restore routes".into())));
            let rules = Rules::start(Role::Host, install, undo, 10, &threads).unwrap();
            assert_eq!(rules.open(), Ok(Some(NetlinkError::NoAnswer("restore routes".into()))));
            assert_eq!(traffic::rules::installed(Role::Host), Ok(Installed { ipv4: false, ipv6: false }));
            assert!(rules.is_opened());
        });
    }

    /// Does something in a network namespace of its own, if there may be one.
    pub(crate) fn in_a_namespace(work: impl FnOnce() + Send + 'static) {
        let inside = || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => work(),
            Err(error) => {
                assert!(!in_ci(), "network tests must not be skipped in CI, and network namespaces need root ({error})");
                let _ = writeln!(std::io::stderr(), "skipped: network namespaces need root ({error})");
            }
        };
        std::thread::spawn(inside).join().unwrap();
    }

    /// Whether nothing may be skipped: `CI` is set, and to something else than nothing or `false`.
    fn in_ci() -> bool {
        std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
    }
}
